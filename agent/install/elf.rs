//! Whether a program is for this machine, by the first bytes of its file (elf(5)).

use crate::engine::fault::{Class, Explain};

/// How many of a file's first bytes [`check`] wants to see.
pub const HEAD: usize = 20;

/// Kubernetes' name of an architecture, with ELF's class (1: 32 bits, 2: 64 bits) and machine (`EM_*`).
const MACHINES: [(&str, u8, u16); 3] = [("amd64", 2, 62), ("arm64", 2, 183), ("arm", 1, 40)];

/// Others that releases exist for, so that a message can name them.
const OTHERS: [(&str, u8, u16); 4] = [("386", 1, 3), ("ppc64le", 2, 21), ("s390x", 2, 22), ("riscv64", 2, 243)];

/// A program is for another machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{program} is a program for {is}, and this machine is {machine}")]
pub struct WrongMachine {
    /// The program.
    pub program: String,
    /// What it is for.
    pub is: String,
    /// What the machine is.
    pub machine: String,
}

impl Explain for WrongMachine {
    fn class(&self) -> Class {
        Class::Verification
    }

    fn advice(&self) -> Option<String> {
        Some(format!("nothing was installed; pin the digest of the program for {}", self.machine))
    }
}

/// The architectures that Kubernetes' words exist for here.
pub fn architectures() -> [&'static str; 3] {
    MACHINES.map(|(name, ..)| name)
}

/// Refuses a program that another machine's kernel would run. What is no ELF file (a script, say) is not judged.
pub fn check(program: &str, head: &[u8], machine: &str) -> Result<(), WrongMachine> {
    match architecture(head) {
        Some(is) if is != machine => Err(WrongMachine { program: program.to_owned(), is, machine: machine.to_owned() }),
        _ => Ok(()),
    }
}

/// What an ELF file is for; nothing if it is none.
fn architecture(head: &[u8]) -> Option<String> {
    let [0x7f, b'E', b'L', b'F', class, order, ..] = *head else { return None };
    let machine = [*head.get(18)?, *head.get(19)?];
    let machine = if order == 2 { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) };
    let known = MACHINES.iter().chain(&OTHERS).find(|(_, c, m)| (*c, *m) == (class, machine));
    Some(known.map_or_else(|| format!("machine {machine} of ELF"), |(name, ..)| (*name).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(class: u8, order: u8, machine: [u8; 2]) -> Vec<u8> {
        let mut head = vec![0; HEAD];
        head[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, order]);
        head[18..20].copy_from_slice(&machine);
        head
    }

    #[test]
    fn a_program_of_another_machine_is_refused_with_both_names() {
        let table = [
            (head(2, 1, [62, 0]), "amd64", None),
            (head(2, 1, [183, 0]), "arm64", None),
            (head(1, 1, [40, 0]), "arm", None),
            (head(2, 1, [183, 0]), "amd64", Some("arm64")),
            (head(1, 1, [40, 0]), "arm64", Some("arm")),
            (head(1, 1, [3, 0]), "amd64", Some("386")),
            (head(2, 2, [0, 22]), "amd64", Some("s390x")),
            (head(2, 1, [1, 2]), "amd64", Some("machine 513 of ELF")),
            (b"#!/bin/sh\n".to_vec(), "amd64", None),
            (b"\x7fELF\x02".to_vec(), "arm", None),
            (Vec::new(), "arm", None),
        ];
        for (head, machine, other) in table {
            let want = other.map(|is| format!("kubelet is a program for {is}, and this machine is {machine}"));
            let got = check("kubelet", &head, machine).err().map(|error| error.to_string());
            assert_eq!(got, want, "{head:?} on {machine}");
        }
    }
}
