//! Routes to other nodes' pods, in a network namespace of the test's own. Needs root, to make one.

use std::process::Command;

/// The machine is `a` on a network with others; nobody answers there, which routes do not need.
const SCRIPT: &str = r#"
agent=
trap '[ -z "$agent" ] || kill $agent' EXIT
ip link set lo up
ip link add name a type veth peer name b
ip address add 10.10.30.21/24 dev a
ip link set dev a up
ip link set dev b up

ours() { ip route show proto 110; }
await() {
    tries=0
    until ours | grep -q "^$1 dev a"; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || { echo "no $1 in: $(ours)"; cat told; exit 1; }
        sleep 0.1
    done
}

# By SIGTERM, and by nothing else.
end() {
    status=0
    kill $agent
    wait $agent || status=$?
    [ $status = 143 ] || { echo "it ended with $status: $(cat told)"; exit 1; }
}

"$AGENT" routes 10.244.1.0/24=10.10.30.22 10.244.2.0/24=10.10.30.23 2> told & agent=$!
await '10.244.1.0/24 via 10.10.30.22'
await '10.244.2.0/24 via 10.10.30.23'
echo "put in place"

ip route delete 10.244.1.0/24
await '10.244.1.0/24 via 10.10.30.22'
ip link set dev a down
[ -z "$(ours)" ] || { echo "the kernel keeps routes of a link that is down"; exit 1; }
ip link set dev a up
await '10.244.1.0/24 via 10.10.30.22'
await '10.244.2.0/24 via 10.10.30.23'
echo "and again"

ip route add 10.99.0.0/24 via 10.10.30.9 proto static
end
"$AGENT" routes 10.244.2.0/24=10.10.30.24 2> told & agent=$!
await '10.244.2.0/24 via 10.10.30.24'
[ "$(ours | wc -l)" = 1 ] || { echo "left: $(ours)"; exit 1; }
ip route show proto static | grep -q 10.99.0.0/24 || { echo "somebody else's is gone"; exit 1; }
echo "removed"

end
"$AGENT" routes 10.244.2.0/24=10.10.30.24 10.244.3.0/24=192.0.2.7 2> told & agent=$!
tries=0
until grep -q 'add route 10.244.3.0/24 via 192.0.2.7: ENETUNREACH' told; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { echo "not told: $(cat told)"; exit 1; }
    sleep 0.1
done
ip address add 192.0.2.1/24 dev a
await '10.244.3.0/24 via 192.0.2.7'
echo "as soon as it could be"
"#;

#[test]
fn routes_are_kept_and_nobody_elses_is_touched() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-eu", "-c", SCRIPT]).current_dir(dir.path());
    let output = command.env("AGENT", env!("CARGO_BIN_EXE_nodeagent")).output().expect("unshare(1)");
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 4, "{told}");
}
