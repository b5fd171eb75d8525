//! Facts (`--facts FILE`) and receipts: what is read is written the same and read back; facts of any kind can be
//! planned with, or say why not.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use nodeagent::config::Settings;
use nodeagent::engine::receipt::Receipt;
use nodeagent::host::facts::Facts;

static SETTINGS: LazyLock<Settings> = LazyLock::new(Settings::sample);

fuzz_target!(|data: &[u8]| {
    if let Ok(receipt) = serde_json::from_slice::<Receipt>(data) {
        let text = serde_json::to_string(&receipt).expect("JSON");
        assert_eq!(serde_json::from_str::<Receipt>(&text).expect("what was written"), receipt);
    }
    let Ok(facts) = serde_json::from_slice::<Facts>(data) else { return };
    let text = serde_json::to_string(&facts).expect("JSON");
    assert_eq!(serde_json::from_str::<Facts>(&text).expect("what was written"), facts);
    match nodeagent::identity::choose(&SETTINGS.node, &SETTINGS.cluster, &facts, None) {
        Ok(identity) => drop(nodeagent::steps::plan(&SETTINGS, &facts, &identity)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
