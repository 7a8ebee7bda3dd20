//! Sealed session tickets: whatever the bytes, an answer; nothing opens that was not sealed here, and what was does.

#![no_main]

use std::sync::LazyLock;

use keyserver::tickets::{Master, SEALED_MAX, seal, unseal};
use libfuzzer_sys::fuzz_target;

static MASTER: LazyLock<Master> = LazyLock::new(|| {
    let path = std::env::temp_dir().join(format!("keyserver-fuzz-{}", std::process::id()));
    keyserver::tickets::create(&path).expect("a new file");
    let master = Master::load(&path).expect("the file that was made");
    std::fs::remove_file(&path).expect("the file is ours");
    master
});

fuzz_target!(|data: &[u8]| {
    const NOW: u64 = 500_000 * 3600;
    assert!(unseal(&MASTER, &[7; 20], 0, NOW, data).is_err());
    let sealed = seal(&MASTER, &[7; 20], 0, NOW, data);
    assert_eq!(sealed.is_ok(), (1..=SEALED_MAX).contains(&data.len()));
    if let Ok(sealed) = sealed {
        let opened = unseal(&MASTER, &[7; 20], 0, NOW, &sealed);
        assert_eq!(opened.as_deref(), Ok(data));
    }
});
