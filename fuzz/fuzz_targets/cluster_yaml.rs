//! `cluster.yaml`: every problem has a place that exists and is one line, and what is accepted makes, for each machine, a
//! configuration that the machine itself accepts, too.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use nodeagent::config::cluster::Cluster;
use nodeagent::config::{ConfigErrors, Source, load};

fn source(data: &[u8]) -> Source {
    Source { name: "cluster.yaml".to_owned(), text: data.to_vec() }
}

fuzz_target!(|data: &[u8]| {
    let cluster = match Cluster::load(source(data)) {
        Ok(cluster) => cluster,
        Err(errors) => return told(data, &errors),
    };
    match cluster.node_configs(&BTreeMap::new()) {
        Err(errors) => told(data, &errors),
        Ok(configs) => {
            assert_eq!(configs.len(), cluster.machines.len(), "a machine has no configuration");
            for (name, config) in configs {
                // JSON is YAML.
                let text = config.document.to_string().into_bytes();
                let again = load(vec![Source { name: "node.yaml".to_owned(), text }]);
                let again = again.unwrap_or_else(|errors| panic!("{name}: the machine refuses it: {errors}"));
                assert_eq!(again.digest, config.settings.digest, "{name}: the machine reads something else");
            }
        }
    }
});

fn told(data: &[u8], errors: &ConfigErrors) {
    assert!(!errors.problems().is_empty(), "refused without a reason");
    let lines = data.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() + 1;
    for problem in errors.problems() {
        assert!((1..=lines + 1).contains(&problem.line), "{problem}: of {lines} lines");
        assert!(!problem.to_string().contains(char::is_control), "{problem:?} is more than one line of text");
    }
}
