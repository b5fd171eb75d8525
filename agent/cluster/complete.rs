//! What the API fills in by itself where a manifest leaves it out or writes it shorter, but not before it compares: up to
//! 1.20 server-side apply refuses a port without its protocol (structured-merge-diff#183), and a quantity that is a number.
//! `kubectl apply` takes both, and so do manifests that people have.

use serde_json::{Value, json};

/// The kinds that have pods' or services' ports. Resources of other people's definition may mean something else by the word.
const KINDS: [&str; 9] = [
    "Pod",
    "Service",
    "Deployment",
    "DaemonSet",
    "StatefulSet",
    "ReplicaSet",
    "ReplicationController",
    "Job",
    "CronJob",
];

/// The object with that filled in.
pub fn complete(object: &Value) -> Value {
    let mut object = object.clone();
    if object["kind"].as_str().is_some_and(|kind| KINDS.contains(&kind)) {
        fill(&mut object["spec"]);
    }
    object
}

fn fill(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(fill),
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("ports", Value::Array(ports)) => {
                        for port in ports.iter_mut().filter_map(Value::as_object_mut) {
                            port.entry("protocol").or_insert_with(|| json!("TCP"));
                        }
                    }
                    ("limits" | "requests", Value::Object(quantities)) => {
                        for quantity in quantities.values_mut().filter(|quantity| quantity.is_number()) {
                            *quantity = json!(quantity.to_string());
                        }
                    }
                    (_, other) => fill(other),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_quantities_are_as_the_api_would_have_them() {
        let container = json!({
            "ports": [{ "containerPort": 53, "protocol": "UDP" }, { "containerPort": 53 }],
            "resources": { "limits": { "cpu": 2, "memory": "70Mi" }, "requests": { "cpu": 0.5 } },
            "args": ["--ports", "1"],
        });
        let pod = |container: &Value| json!({ "kind": "Pod", "spec": { "containers": [container] } });
        let want = json!({
            "ports": [{ "containerPort": 53, "protocol": "UDP" }, { "containerPort": 53, "protocol": "TCP" }],
            "resources": { "limits": { "cpu": "2", "memory": "70Mi" }, "requests": { "cpu": "0.5" } },
            "args": ["--ports", "1"],
        });
        assert_eq!(complete(&pod(&container)), pod(&want));
        assert_eq!(complete(&pod(&want)), pod(&want));
        let service = json!({ "kind": "Service", "spec": { "ports": [{ "port": 80 }] } });
        assert_eq!(complete(&service)["spec"]["ports"][0]["protocol"], "TCP");
        let other = json!({ "kind": "Gateway", "spec": { "ports": [{ "port": 80 }] } });
        assert_eq!(complete(&other), other);
    }
}
