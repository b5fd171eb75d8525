//! Archives, plain and compressed: what is taken out is what its digest says; nothing else is opened, none twice.
#![no_main]

use std::cell::RefCell;
use std::io::{self, Write};

use libfuzzer_sys::fuzz_target;
use nodeagent::config::values::Sha256;
use nodeagent::install::archive::take;

struct Kept<'a>(&'a RefCell<Vec<Vec<u8>>>, usize);

impl Write for Kept<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut()[self.1].extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (files, opened) = (RefCell::new(vec![Vec::new(); 2]), RefCell::new([0; 2]));
    let open = |at: usize| {
        opened.borrow_mut()[at] += 1;
        Ok(Kept(&files, at))
    };
    let taken = take(bytes, &["tool", "bin/x"], open);
    assert!(opened.borrow().iter().all(|times| *times <= 1));
    match taken {
        Ok(taken) => {
            for (taken, file) in taken.iter().zip(files.borrow().iter()) {
                assert_eq!(taken.sha256, Sha256::of(file));
                assert!(file.starts_with(&taken.head));
            }
        }
        Err(error) => {
            let said = error.to_string();
            assert!(!said.contains('\n') && said.len() < 20_000, "{said:?}");
        }
    }
});
