//! `CoreDNS` as the cluster's DNS service: where pods look names up (`cluster.dns` in each kubelet's configuration).
//!
//! Names and labels are those that kubeadm's has, so that whatever looks for the cluster's DNS finds it.

use serde_json::{Value, json};

use super::objects::RBAC;
use crate::config::settings::Settings;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "coredns";
const ROLE: &str = "system:coredns";

/// One that is lost is not missed.
const REPLICAS: u32 = 2;

/// The objects, in the order in which they are applied; none where the cluster's DNS is somebody else's.
pub fn objects(settings: &Settings) -> Vec<Value> {
    let Some(image) = &settings.cluster.core_dns else { return Vec::new() };
    let mut all = rights().to_vec();
    all.extend([
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": NAME, "namespace": NAMESPACE },
            "data": { "Corefile": corefile(&settings.cluster.domain) },
        }),
        deployment(image.as_str()),
        service(&settings.cluster.dns.to_string()),
    ]);
    all
}

/// What it may read: that of which it tells the addresses (coredns.io/plugins/kubernetes).
fn rights() -> [Value; 3] {
    let version = format!("{RBAC}/v1");
    [
        json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": { "name": NAME, "namespace": NAMESPACE },
        }),
        json!({
            "apiVersion": version,
            "kind": "ClusterRole",
            "metadata": { "name": ROLE },
            "rules": [
                { "apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"] },
                { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"] },
            ],
        }),
        json!({
            "apiVersion": version,
            "kind": "ClusterRoleBinding",
            "metadata": { "name": ROLE },
            "roleRef": { "apiGroup": RBAC, "kind": "ClusterRole", "name": ROLE },
            "subjects": [{ "kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE }],
        }),
    ]
}

/// What it answers: names of the cluster by itself, all others by asking whom the machine asks. A query that comes back
/// to itself ends it (`loop`), because nothing else would.
fn corefile(domain: &str) -> String {
    format!(
        "\
.:53 {{
    errors
    health {{
        lameduck 5s
    }}
    ready
    kubernetes {domain} in-addr.arpa ip6.arpa {{
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }}
    prometheus :9153
    forward . /etc/resolv.conf
    cache 30
    loop
    reload
    loadbalance
}}
"
    )
}

fn labels() -> Value {
    json!({ "k8s-app": "kube-dns" })
}

fn deployment(image: &str) -> Value {
    let probe = |path: &str, port: u16| json!({ "httpGet": { "path": path, "port": port } });
    let tolerated = |key: &str| json!({ "key": key, "operator": "Exists", "effect": "NoSchedule" });
    let container = json!({
        "name": NAME,
        "image": image,
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [
            { "name": "dns", "containerPort": 53, "protocol": "UDP" },
            { "name": "dns-tcp", "containerPort": 53, "protocol": "TCP" },
            { "name": "metrics", "containerPort": 9153, "protocol": "TCP" },
        ],
        "livenessProbe": probe("/health", 8080),
        "readinessProbe": probe("/ready", 8181),
        "resources": { "requests": { "cpu": "100m", "memory": "70Mi" }, "limits": { "memory": "170Mi" } },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] },
        },
        "volumeMounts": [{ "name": "config", "mountPath": "/etc/coredns", "readOnly": true }],
    });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": NAME, "namespace": NAMESPACE, "labels": labels() },
        "spec": {
            "replicas": REPLICAS,
            "selector": { "matchLabels": labels() },
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1 } },
            "template": {
                "metadata": { "labels": labels() },
                "spec": {
                    "priorityClassName": "system-cluster-critical",
                    "serviceAccountName": NAME,
                    // The machine's own servers for all other names, and not itself.
                    "dnsPolicy": "Default",
                    "nodeSelector": { "kubernetes.io/os": "linux" },
                    "tolerations": [
                        tolerated("node-role.kubernetes.io/control-plane"),
                        tolerated("node-role.kubernetes.io/master"),
                    ],
                    // On two machines, if there are two.
                    "affinity": { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
                        "weight": 100,
                        "podAffinityTerm": {
                            "labelSelector": { "matchLabels": labels() },
                            "topologyKey": "kubernetes.io/hostname",
                        },
                    }] } },
                    "containers": [container],
                    "volumes": [{
                        "name": "config",
                        "configMap": { "name": NAME, "items": [{ "key": "Corefile", "path": "Corefile" }] },
                    }],
                },
            },
        },
    })
}

fn service(address: &str) -> Value {
    let port = |name: &str, port: u16, protocol: &str| json!({ "name": name, "port": port, "protocol": protocol });
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        // By this name pods' own configurations and tools know it, since before CoreDNS.
        "metadata": { "name": "kube-dns", "namespace": NAMESPACE, "labels": labels() },
        "spec": {
            "clusterIP": address,
            "selector": labels(),
            "ports": [port("dns", 53, "UDP"), port("dns-tcp", 53, "TCP"), port("metrics", 9153, "TCP")],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_at_the_address_that_kubelets_name_and_only_where_it_is_asked_for() {
        let mut settings = Settings::sample();
        assert!(objects(&settings).is_empty());
        settings.cluster.core_dns = Some("registry.k8s.io/coredns/coredns:v1.12.1".parse().expect("an image"));
        let all = objects(&settings);
        let of = |kind: &str| all.iter().find(|object| object["kind"] == kind).expect(kind);
        assert_eq!(of("Service")["spec"]["clusterIP"], settings.cluster.dns.to_string());
        assert_eq!(of("Service")["spec"]["selector"], of("Deployment")["spec"]["template"]["metadata"]["labels"]);
        let corefile = of("ConfigMap")["data"]["Corefile"].as_str().expect("text");
        assert!(corefile.contains(&format!("kubernetes {} ", settings.cluster.domain)), "{corefile}");
        assert_eq!(corefile.matches('{').count(), corefile.matches('}').count());
        let account = &of("Deployment")["spec"]["template"]["spec"]["serviceAccountName"];
        assert_eq!(of("ClusterRoleBinding")["subjects"][0]["name"], *account);
    }
}
