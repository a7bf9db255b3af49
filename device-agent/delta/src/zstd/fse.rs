//! Finite State Entropy tables (RFC 8878, section 4.1): read from their description, for decoding and for encoding
//! exactly as the reference encoder does.

use super::bits::{Backward, Forward, Writer};
use super::BAD;
use crate::Error;

/// How often each symbol is expected; -1: less than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) log: u32,
    pub(super) counts: Vec<i16>,
}

impl Counts {
    /// Reads a description; returns its length in bytes besides.
    pub(super) fn parse(
        bytes: &[u8],
        log_limit: u32,
        symbols: usize,
    ) -> Result<(Self, usize), Error> {
        let mut bits = Forward::new(bytes);
        let log = bits.peek(4) + 5;
        bits.skip(4);
        if log > log_limit {
            return Err(BAD);
        }
        let mut counts: Vec<i16> = Vec::new();
        let mut remaining = (1i32 << log) + 1;
        let mut threshold = 1i32 << log;
        let mut width = log + 1;
        while remaining > 1 {
            let max = 2 * threshold - 1 - remaining;
            let low = bits.peek(width - 1) as i32;
            let count = if low < max {
                bits.skip(width - 1);
                low
            } else {
                let full = bits.peek(width) as i32;
                bits.skip(width);
                if full >= threshold {
                    full - max
                } else {
                    full
                }
            } - 1;
            remaining -= count.abs();
            counts.push(count as i16);
            if count == 0 {
                loop {
                    let zeros = bits.peek(2);
                    bits.skip(2);
                    counts.resize(counts.len() + zeros as usize, 0);
                    if zeros < 3 || counts.len() > symbols {
                        break;
                    }
                }
            }
            if counts.len() > symbols || remaining < 1 {
                return Err(BAD);
            }
            while remaining < threshold {
                width -= 1;
                threshold >>= 1;
            }
        }
        Ok((Self { log, counts }, bits.bytes()?))
    }

    /// A table with one symbol, which takes no bits.
    pub(super) fn one(symbol: u8) -> Self {
        let mut counts = vec![0; usize::from(symbol) + 1];
        counts[usize::from(symbol)] = 1;
        Self { log: 0, counts }
    }

    /// The symbol of each state.
    fn spread(&self) -> Result<Vec<u8>, Error> {
        let size = 1usize << self.log;
        let mut symbols = vec![0u8; size];
        if self.log == 0 {
            symbols[0] = (self.counts.len() - 1) as u8;
            return Ok(symbols);
        }
        let mut high = size;
        for (symbol, _) in self.counts.iter().enumerate().filter(|(_, n)| **n == -1) {
            high = high.checked_sub(1).ok_or(BAD)?;
            symbols[high] = symbol as u8;
        }
        let step = (size >> 1) + (size >> 3) + 3;
        let mut at = 0;
        for (symbol, count) in self.counts.iter().enumerate() {
            for _ in 0..*count {
                if high == 0 {
                    return Err(BAD);
                }
                symbols[at] = symbol as u8;
                loop {
                    at = (at + step) & (size - 1);
                    if at < high {
                        break;
                    }
                }
            }
        }
        if at != 0 {
            return Err(BAD);
        }
        Ok(symbols)
    }

    pub(super) fn decoder(&self) -> Result<Decoder, Error> {
        let size = 1u32 << self.log;
        let mut next: Vec<u32> = self
            .counts
            .iter()
            .map(|n| n.unsigned_abs().into())
            .collect();
        let states = self
            .spread()?
            .into_iter()
            .map(|symbol| {
                let state = &mut next[usize::from(symbol)];
                let bits = self.log.saturating_sub((*state).max(1).ilog2());
                let base = (*state << bits).wrapping_sub(size);
                *state += 1;
                State {
                    symbol,
                    bits: bits as u8,
                    base: base as u16,
                }
            })
            .collect();
        Ok(Decoder {
            log: self.log,
            states,
        })
    }

    pub(super) fn encoder(&self) -> Result<Encoder, Error> {
        let size = 1u32 << self.log;
        let mut total = 0;
        let mut places = Vec::with_capacity(self.counts.len());
        let mut symbols = Vec::with_capacity(self.counts.len());
        for count in &self.counts {
            places.push(total as usize);
            let count = u32::from(count.unsigned_abs());
            let symbol = match count {
                _ if self.log == 0 => Symbol::default(),
                0 => Symbol {
                    bits: ((self.log + 1) << 16) - size,
                    find: 0,
                },
                1 => Symbol {
                    bits: (self.log << 16).wrapping_sub(size),
                    find: total as i32 - 1,
                },
                _ => {
                    let most = self.log - (count - 1).ilog2();
                    Symbol {
                        bits: (most << 16).wrapping_sub(count << most),
                        find: total as i32 - count as i32,
                    }
                }
            };
            symbols.push(symbol);
            total += count;
        }
        let mut states = vec![0u16; size as usize];
        for (at, symbol) in self.spread()?.into_iter().enumerate() {
            let place = &mut places[usize::from(symbol)];
            if self.log > 0 {
                *states.get_mut(*place).ok_or(BAD)? = (size as usize + at) as u16;
            }
            *place += 1;
        }
        Ok(Encoder {
            log: self.log,
            states,
            symbols,
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct State {
    symbol: u8,
    bits: u8,
    base: u16,
}

pub(super) struct Decoder {
    log: u32,
    states: Vec<State>,
}

impl Decoder {
    pub(super) fn begin(&self, bits: &mut Backward<'_>) -> usize {
        bits.take(self.log) as usize
    }

    pub(super) fn symbol(&self, state: usize) -> u8 {
        self.states[state].symbol
    }

    pub(super) fn next(&self, state: usize, bits: &mut Backward<'_>) -> usize {
        let state = &self.states[state];
        usize::from(state.base) + bits.take(state.bits.into()) as usize
    }

    /// Bits that the next step takes.
    pub(super) fn needs(&self, state: usize) -> i64 {
        self.states[state].bits.into()
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Symbol {
    bits: u32,
    find: i32,
}

pub(super) struct Encoder {
    log: u32,
    states: Vec<u16>,
    symbols: Vec<Symbol>,
}

impl Encoder {
    fn state(&self, value: u32, symbol: Symbol) -> Result<u32, Error> {
        let place = (value as i32).wrapping_add(symbol.find);
        let state = usize::try_from(place).ok().and_then(|p| self.states.get(p));
        state.map(|s| (*s).into()).ok_or(BAD)
    }

    fn known(&self, symbol: u8) -> Result<Symbol, Error> {
        self.symbols.get(usize::from(symbol)).copied().ok_or(BAD)
    }

    /// The state after which nothing follows but this symbol.
    pub(super) fn begin(&self, symbol: u8) -> Result<u32, Error> {
        let symbol = self.known(symbol)?;
        let bits = symbol.bits.wrapping_add(1 << 15) >> 16;
        let value = (bits << 16).wrapping_sub(symbol.bits);
        self.state(value.checked_shr(bits).ok_or(BAD)?, symbol)
    }

    pub(super) fn add(&self, state: u32, symbol: u8, out: &mut Writer) -> Result<u32, Error> {
        let symbol = self.known(symbol)?;
        let bits = state.wrapping_add(symbol.bits) >> 16;
        if bits > 31 {
            return Err(BAD);
        }
        out.add(state, bits);
        self.state(state >> bits, symbol)
    }

    pub(super) fn end(&self, state: u32, out: &mut Writer) {
        out.add(state, self.log);
    }
}
