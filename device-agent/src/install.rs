//! From a release to an armed, switched device: room, download, staging, deployment, switch.

mod objects;
mod obtain;

use anyhow::{Context, Result};
use bsp::boot::store::BootStore;
use bsp::device::ID_KARG;
use keys::release::Release;

use crate::device::{Device, Situation};
use crate::failed::{Failure, Memory};
use crate::problem::{Kind, Problem};
use crate::stage::{self, Verified};
use crate::steps::{self, Menu};
use crate::sysroot::{Deployed, Origin, Sysroot};
use crate::transport::Transport;
use crate::trial::Trial;
use crate::{judge, stop_point, system};

/// A switch that waits for its reboot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switched {
    /// Identity that is armed.
    pub id: String,
    /// Its version.
    pub version: String,
    /// Bytes transferred for it.
    pub downloaded: u64,
}

/// Tells a person what is going on.
pub type Say<'a> = &'a dyn Fn(&str);

/// Installs a release: after this the device boots it on trial.
pub async fn install(
    device: &Device,
    transport: &Transport,
    release: &Release,
    say: Say<'_>,
) -> Result<Switched> {
    let mut store = device.store()?;
    if let Some(done) = prepare(device, store.as_mut(), Some(&release.commit))? {
        say(&format!(
            "{} is already installed and waits for the reboot",
            release.version
        ));
        return Ok(done);
    }
    let sysroot = Sysroot::write(device.paths.root())?;
    let (verified, downloaded) = obtain::obtain(device, transport, release, &sysroot, say).await?;
    say(&format!("checking out {}", release.version));
    let origin = Origin {
        reference: format!("{}/{}", device.config.product, device.config.board),
        version: release.version.clone(),
        epoch: release.epoch,
    };
    let new = deploy(device, &sysroot, &verified, &origin)?;
    switch(device, store.as_mut(), &sysroot, &new, &origin.version)?;
    finish(device, &sysroot, say);
    Ok(Switched {
        id: new.id.unwrap_or_default(),
        version: origin.version,
        downloaded,
    })
}

/// Switches back to the deployment before, which is tried and confirmed like any other; `None` if it was
/// enough to take back a switch that had not been booted yet.
pub fn roll_back(device: &Device, say: Say<'_>) -> Result<Option<Switched>> {
    let mut store = device.store()?;
    let pending = matches!(device.situation(store.as_ref())?, Situation::Pending { .. });
    prepare(device, store.as_mut(), None)?;
    if pending {
        return Ok(None);
    }
    let sysroot = Sysroot::write(device.paths.root())?;
    let previous = sysroot
        .deployments()
        .into_iter()
        .find(|d| d.id.as_ref().is_some_and(|id| *id != device.booted))
        .ok_or_else(|| {
            Problem::new(Kind::State, "there is no deployment to go back to")
                .hint("`device-agent deploy VERSION` installs any release the server has")
        })?;
    let version = judge::version_of(device, &previous);
    say(&format!("going back to {version}"));
    switch(device, store.as_mut(), &sysroot, &previous, &version)?;
    // Otherwise the timer would install again what the operator has just left.
    Memory::load(&device.paths).add(
        &device.paths,
        device.booted_commit(),
        Failure {
            version: Some(device.config.version.clone()),
            time: system::now(),
            reason: "rolled back by the operator".into(),
        },
    )?;
    Ok(Some(Switched {
        id: previous.id.unwrap_or_default(),
        version,
        downloaded: 0,
    }))
}

/// Brings the device into a situation from which something can be installed. Returns the switch that is
/// already there if it is to `commit`.
fn prepare(
    device: &Device,
    store: &mut dyn BootStore,
    commit: Option<&str>,
) -> Result<Option<Switched>> {
    match device.situation(store)? {
        Situation::Confirmed => {}
        Situation::OnTrial { .. } => return Err(Problem::new(
            Kind::State,
            "the running deployment is still on trial",
        )
        .hint("wait until it is confirmed, or say `device-agent confirm` or `device-agent reject`")
        .into()),
        Situation::Pending { id } => {
            if commit == Some(crate::failed::commit_of(&id)) {
                let version =
                    Trial::load(&device.paths, &id).map_or_else(String::new, |t| t.version);
                return Ok(Some(Switched {
                    id,
                    version,
                    downloaded: 0,
                }));
            }
            let sysroot = Sysroot::write(device.paths.root())?;
            steps::run(
                &steps::withdraw(&device.booted),
                store,
                &mut Switcher::new(&sysroot),
            )?;
            device.set_pending(None)?;
            sysroot.clean_up()?;
        }
        Situation::ArmedNotSwitched { .. } => {
            steps::run(&steps::disarm(&device.booted), store, &mut steps::NoMenu)?;
        }
        Situation::Rejected => {
            return Err(
                Problem::new(Kind::State, "the running deployment was given up")
                    .hint("the device must reboot first")
                    .into(),
            )
        }
        Situation::FellBack { failed } => {
            judge::after_fallback(device, store, &failed)?;
        }
        Situation::Lost => judge::heal(device, store)?,
    }
    Ok(None)
}

fn deploy(
    device: &Device,
    sysroot: &Sysroot,
    verified: &Verified,
    origin: &Origin,
) -> Result<Deployed> {
    let id = sysroot.new_id(&verified.commit);
    let mut kargs = verified.kargs.clone();
    kargs.push(format!("{ID_KARG}={id}"));
    let running = sysroot.find(&device.booted);
    let new = sysroot.deploy(
        &device.config.stateroot,
        &verified.commit,
        origin,
        running.as_ref(),
        &kargs,
    )?;
    stop_point::reach("deployed");
    Ok(new)
}

/// Arms and switches; if the switch fails, disarms.
fn switch(
    device: &Device,
    store: &mut dyn BootStore,
    sysroot: &Sysroot,
    new: &Deployed,
    version: &str,
) -> Result<()> {
    let id = new
        .id
        .clone()
        .context("the new deployment has no identity")?;
    let tries = device.config.boot.tries;
    let notes = Trial {
        id: id.clone(),
        version: version.to_owned(),
        from_version: device.config.version.clone(),
        tries,
        armed: system::now(),
        boots: Vec::new(),
        rejected: None,
    };
    notes.save(&device.paths)?;
    device.set_pending(Some(&id))?;
    let plan = steps::switch(
        &device.booted,
        &id,
        tries,
        std::slice::from_ref(&device.booted),
    );
    let mut menu = Switcher::new(sysroot).with(new.clone());
    if let Err(error) = steps::run(&plan, store, &mut menu) {
        // The first error is the one to tell; an armed identity that is not in the menu means nothing.
        let _ = steps::run(&steps::disarm(&device.booted), store, &mut steps::NoMenu);
        let _ = device.set_pending(None);
        return Err(error);
    }
    Ok(())
}

fn finish(device: &Device, sysroot: &Sysroot, say: Say<'_>) {
    let tidy = || -> Result<()> {
        sysroot.set_ref(stage::STAGED_REF, None)?;
        sysroot.clean_up()
    };
    if let Err(error) = tidy() {
        say(&format!("tidying up: {error:#}"));
    }
    let _ = std::fs::remove_dir(device.paths.state().join("download"));
}

/// The boot menu of a sysroot, by identity.
#[derive(Debug)]
pub struct Switcher<'a> {
    sysroot: &'a Sysroot,
    fresh: Vec<Deployed>,
}

impl<'a> Switcher<'a> {
    /// For orders of the deployments that are in the menu now.
    pub fn new(sysroot: &'a Sysroot) -> Self {
        Self {
            sysroot,
            fresh: Vec::new(),
        }
    }

    /// Also knows this one, which is not in the menu yet.
    pub fn with(mut self, fresh: Deployed) -> Self {
        self.fresh.push(fresh);
        self
    }
}

impl Menu for Switcher<'_> {
    fn set(&mut self, order: &[String]) -> Result<()> {
        let mut known = self.sysroot.deployments();
        known.extend(self.fresh.iter().cloned());
        let chosen: Vec<Deployed> = order
            .iter()
            .map(|id| {
                known
                    .iter()
                    .find(|d| d.id.as_ref() == Some(id))
                    .cloned()
                    .with_context(|| format!("no deployment has the identity {id}"))
            })
            .collect::<Result<_>>()?;
        self.sysroot.set_order(&chosen)
    }
}
