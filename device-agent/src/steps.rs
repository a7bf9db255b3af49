//! Everything that decides what boots next, as plans: lists of single atomic writes whose order is the
//! whole safety of an update. One function carries them out; the tests cut the power after every write.

use anyhow::{Context, Result};
use bsp::boot::state::BootState;
use bsp::boot::store::BootStore;

use crate::problem::{Kind, Problem};
use crate::stop_point;

/// One atomic write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// The state block: one sector.
    State(BootState),
    /// The spare record of the last confirmed deployment: one sector.
    Spare(String),
    /// The boot menu, by identity, the default one first: one rename.
    Menu(Vec<String>),
}

/// A write and the name of the stop point after it.
pub type Step = (Write, Option<&'static str>);

/// The boot menu, as far as plans change it.
pub trait Menu {
    /// Replaces the menu.
    fn set(&mut self, order: &[String]) -> Result<()>;
}

/// Arm first, then switch: a menu whose first entry is not armed would never boot it, an armed identity
/// that is not first means nothing.
pub fn switch(good: &str, new: &str, tries: u8, keep: &[String]) -> Vec<Step> {
    let armed = BootState::confirmed(good).armed(new, tries);
    let order = std::iter::once(new.to_owned())
        .chain(keep.iter().cloned())
        .collect();
    vec![
        (Write::State(armed), Some("armed")),
        (Write::Menu(order), Some("switched")),
    ]
}

/// Confirms the running deployment: the state alone decides, the spare record follows it.
pub fn confirm(booted: &str) -> Vec<Step> {
    vec![
        (
            Write::State(BootState::confirmed(booted)),
            Some("confirmed-half"),
        ),
        (Write::Spare(booted.to_owned()), None),
    ]
}

/// Gives up a trial: from the next boot on the boot loader takes `good`.
pub fn reject(good: &str) -> Vec<Step> {
    vec![(Write::State(BootState::confirmed(good)), Some("rejected"))]
}

/// After a fallback, or to take back a switch before its reboot: first nothing is armed, then the menu
/// loses what was armed.
pub fn withdraw(booted: &str) -> Vec<Step> {
    vec![
        (Write::State(BootState::confirmed(booted)), None),
        (Write::Menu(vec![booted.to_owned()]), None),
    ]
}

/// Clears a trial that was armed but never switched to.
pub fn disarm(booted: &str) -> Vec<Step> {
    vec![(Write::State(BootState::confirmed(booted)), None)]
}

/// Writes a lost state anew from what runs.
pub fn heal(booted: &str) -> Vec<Step> {
    vec![
        (Write::State(BootState::confirmed(booted)), None),
        (Write::Spare(booted.to_owned()), None),
    ]
}

/// Carries out a plan. After an error nothing further is done; every prefix of a plan is a safe place.
pub fn run(plan: &[Step], store: &mut dyn BootStore, menu: &mut dyn Menu) -> Result<()> {
    for (write, stop) in plan {
        match write {
            Write::State(state) => store
                .write_state(state)
                .context(Problem::new(Kind::BootState, "writing the boot state"))?,
            Write::Spare(good) => store.write_good(good).context(Problem::new(
                Kind::BootState,
                "writing the spare record of the last confirmed deployment",
            ))?,
            Write::Menu(order) => menu.set(order)?,
        }
        if let Some(name) = stop {
            stop_point::reach(name);
        }
    }
    Ok(())
}

/// For plans that leave the menu alone.
#[derive(Debug)]
pub struct NoMenu;

impl Menu for NoMenu {
    fn set(&mut self, _: &[String]) -> Result<()> {
        anyhow::bail!("this plan does not change the boot menu")
    }
}

#[cfg(test)]
mod tests;
