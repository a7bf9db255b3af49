//! Where x86-64 instructions end and what they refer to (encoding: Intel's manual, volume 2, appendix A).

/// An instruction as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    /// Bytes.
    pub length: usize,
    /// Offset of a 32-bit displacement that is relative to the instruction's end.
    pub relative: Option<usize>,
}

const M: u8 = 1; // ModR/M byte
const B: u8 = 2; // 8-bit immediate
const W: u8 = 4; // 16-bit immediate
const Z: u8 = 8; // 32-bit immediate, 16 with an operand-size prefix
const J: u8 = 16; // 32-bit branch
const X: u8 = 128; // not an instruction

#[rustfmt::skip]
const ONE: [u8; 256] = {
    let mut t = [0u8; 256];
    let mut i = 0;
    while i < 0x40 {
        t[i] = match i & 7 { 0..=3 => M, 4 => B, 5 => Z, _ => X };
        i += 1;
    }
    t[0x60] = X; t[0x61] = X; t[0x63] = M;
    t[0x68] = Z; t[0x69] = M | Z; t[0x6a] = B; t[0x6b] = M | B;
    i = 0x70; while i < 0x80 { t[i] = B; i += 1; }
    t[0x80] = M | B; t[0x81] = M | Z; t[0x82] = X; t[0x83] = M | B;
    i = 0x84; while i < 0x90 { t[i] = M; i += 1; }
    t[0x9a] = X; t[0xa8] = B; t[0xa9] = Z;
    i = 0xb0; while i < 0xb8 { t[i] = B; i += 1; }
    while i < 0xc0 { t[i] = Z; i += 1; }
    t[0xc0] = M | B; t[0xc1] = M | B; t[0xc2] = W; t[0xc6] = M | B; t[0xc7] = M | Z;
    t[0xc8] = W | B; t[0xca] = W; t[0xcd] = B; t[0xce] = X;
    t[0xd0] = M; t[0xd1] = M; t[0xd2] = M; t[0xd3] = M; t[0xd4] = X; t[0xd5] = X; t[0xd6] = X;
    i = 0xd8; while i < 0xe0 { t[i] = M; i += 1; }
    while i < 0xe8 { t[i] = B; i += 1; }
    t[0xe8] = J; t[0xe9] = J; t[0xea] = X; t[0xeb] = B;
    t[0xf6] = M; t[0xf7] = M; t[0xfe] = M; t[0xff] = M;
    t
};

#[rustfmt::skip]
const TWO: [u8; 256] = {
    let mut t = [M; 256];
    let plain = [0x05, 0x06, 0x07, 0x08, 0x09, 0x0b, 0x0e, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x37, 0x77,
        0xa0, 0xa1, 0xa2, 0xa8, 0xa9, 0xaa, 0xc8, 0xc9, 0xca, 0xcb, 0xcc, 0xcd, 0xce, 0xcf];
    let mut i = 0;
    while i < plain.len() { t[plain[i]] = 0; i += 1; }
    i = 0x80; while i < 0x90 { t[i] = J; i += 1; }
    let immediate = [0x0f, 0x70, 0x71, 0x72, 0x73, 0xa4, 0xac, 0xba, 0xc2, 0xc4, 0xc5, 0xc6];
    i = 0; while i < immediate.len() { t[immediate[i]] = M | B; i += 1; }
    t[0x04] = X; t[0x0a] = X; t[0x0c] = X;
    t
};

/// Whether these bytes (the newest lowest) end where a 32-bit displacement begins, as far as a few of them tell: calls,
/// jumps, branches, and what moves, compares or takes the address of something by a place relative to the instruction.
pub(crate) fn names_place(history: u64) -> bool {
    let [last, opcode, prefix, ..] = history.to_le_bytes();
    match (last, opcode) {
        (0xe8 | 0xe9, _) | (0x80..=0x8f, 0x0f) | (0x15 | 0x25, 0xff) => true,
        (_, 0x03 | 0x39 | 0x3b | 0x63 | 0x89 | 0x8b | 0x8d) => {
            last & 0xc7 == 5 && prefix & 0xf8 == 0x48
        }
        _ => false,
    }
}

/// The instruction at the beginning of `code`; `None` if there is none or it is cut off.
pub(super) fn decode(code: &[u8]) -> Option<Instruction> {
    let mut at = 0;
    let (mut short, mut wide) = (false, false);
    loop {
        match *code.get(at)? {
            0x66 => short = true,
            0x67 | 0xf0 | 0xf2 | 0xf3 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 => {}
            _ => break,
        }
        at += 1;
        if at > 14 {
            return None;
        }
    }
    if code.get(at)? & 0xf0 == 0x40 {
        wide = code[at] & 8 != 0;
        at += 1;
    }
    let opcode = *code.get(at)?;
    at += 1;
    let shape = match opcode {
        0x0f => {
            let second = *code.get(at)?;
            at += 1;
            match second {
                0x38 => {
                    at += 1;
                    M
                }
                0x3a => {
                    at += 1;
                    M | B
                }
                _ => TWO[usize::from(second)],
            }
        }
        0xc5 => {
            let second = *code.get(at + 1)?;
            at += 2;
            TWO[usize::from(second)] & !J
        }
        0xc4 | 0x62 => {
            let map = code.get(at)? & if opcode == 0xc4 { 31 } else { 7 };
            at += if opcode == 0xc4 { 2 } else { 3 };
            let second = *code.get(at)?;
            at += 1;
            match map {
                1 => TWO[usize::from(second)] & !J,
                3 => M | B,
                _ => M,
            }
        }
        0xa0..=0xa3 => {
            at += 8;
            0
        }
        0xb8..=0xbf if wide => {
            at += 8;
            0
        }
        0xf6 | 0xf7 if code.get(at)? & 0x38 < 0x10 => M | if opcode == 0xf6 { B } else { Z },
        _ => ONE[usize::from(opcode)],
    };
    if shape & X != 0 {
        return None;
    }
    let mut relative = None;
    if shape & M != 0 {
        let modrm = *code.get(at)?;
        at += 1;
        let (mode, base) = (modrm >> 6, modrm & 7);
        let mut displaced = match mode {
            1 => 1,
            2 => 4,
            _ => 0,
        };
        if mode != 3 && base == 4 {
            if mode == 0 && code.get(at)? & 7 == 5 {
                displaced = 4;
            }
            at += 1;
        } else if mode == 0 && base == 5 {
            relative = Some(at);
            displaced = 4;
        }
        at += displaced;
    }
    if shape & J != 0 {
        relative = Some(at);
        at += 4;
    }
    at += usize::from(shape & B != 0) + if shape & W != 0 { 2 } else { 0 };
    if shape & Z != 0 {
        at += if short { 2 } else { 4 };
    }
    (at <= code.len() && at <= 15).then_some(Instruction {
        length: at,
        relative,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_before_a_place_is_known() {
        let after = |bytes: &[u8]| names_place(bytes.iter().fold(0, |h, b| h << 8 | u64::from(*b)));
        assert!(after(&[0xe8])); // call
        assert!(after(&[0x0f, 0x84])); // je
        assert!(after(&[0x48, 0x8d, 0x3d])); // lea rdi, [rip + …]
        assert!(after(&[0xff, 0x25])); // jmp [rip + …]
        assert!(!after(&[0x48, 0x8d, 0x7d])); // lea rdi, [rbp + …]
        assert!(!after(&[0x90, 0x8d, 0x3d]));
        assert!(!after(&[0x48, 0x0f]));
    }
}
