//! Rules for how the device behaves: system settings, updates, health.

use std::collections::BTreeSet;

use super::{at, content, syntax, Report};
use crate::manifest::{Health, Product, System, Update};

pub(super) fn check(report: &mut Report<'_>, product: &Product) {
    system(report, &product.system);
    update(report, &product.update);
    health(report, &product.health);
}

fn system(report: &mut Report<'_>, system: &System) {
    if let Some(name) = &system.hostname {
        report.require(
            syntax::is_hostname(name),
            at!["system", "hostname"],
            &format!("\"{name}\" is no host name"),
            "lower case letters, digits and dashes, 63 at most; `????` become digits of the machine id",
        );
    }
    report.require(
        syntax::is_timezone(&system.timezone),
        at!["system", "timezone"],
        &format!("\"{}\" is no time zone", system.timezone),
        "an area and a city as in /usr/share/zoneinfo, e.g. \"Europe/Berlin\", or \"UTC\"",
    );
    let locale = &system.locale;
    let with_utf8 = format!("{locale}.UTF-8");
    let hint = if syntax::is_locale(&with_utf8) {
        format!("did you mean \"{with_utf8}\"?")
    } else {
        "language, country and UTF-8, e.g. \"en_GB.UTF-8\", or \"C.UTF-8\"".to_string()
    };
    report.require(
        syntax::is_locale(locale),
        at!["system", "locale"],
        &format!("\"{locale}\" is no locale"),
        &hint,
    );
}

fn update(report: &mut Report<'_>, update: &Update) {
    let hint = |url: &str| match url.strip_prefix("http://") {
        Some(rest) => format!("did you mean \"https://{rest}\"? Updates never travel in the clear"),
        None => "e.g. \"https://updates.example.com/\"".to_string(),
    };
    if !update.url.is_empty() {
        report.require(
            syntax::is_url(&update.url, &["https", "file"]),
            at!["update", "url"],
            &format!("\"{}\" is no https:// or file:// address", update.url),
            &hint(&update.url),
        );
    }
    if let Some(url) = &update.report_url {
        report.require(
            syntax::is_url(url, &["https"]),
            at!["update", "report-url"],
            &format!("\"{url}\" is no https:// address"),
            &hint(url),
        );
    }
    identity(report, update);
    report.require(
        syntax::is_channel(&update.channel),
        at!["update", "channel"],
        &format!("\"{}\" is no channel name", update.channel),
        "lower case letters, digits and `.` `-` `_`, 32 at most, e.g. \"stable\"",
    );
    report.require(
        syntax::is_interval(&update.interval),
        at!["update", "interval"],
        &format!("\"{}\" is no interval", update.interval),
        "a time span such as \"1h\" or \"30min\", or a calendar expression such as \"daily\"",
    );
    if let Some(ca) = &update.ca {
        // Whether it exists is judged when it is built in: `builder keys init` may yet have to make it.
        report.require(
            syntax::is_inner_path(ca),
            at!["update", "ca"],
            &format!("\"{ca}\" leaves the product's directory"),
            "a relative path without `..`, e.g. \"keys/tls/ca.pem\"",
        );
    }
}

/// Who the server must be, and who the device is.
fn identity(report: &mut Report<'_>, update: &Update) {
    for pin in &update.pinned_keys {
        if let Err(error) = keys::pin::Pin::parse(pin) {
            let hint = "`builder serve` prints its own; for others see docs/src/agent.md";
            report.require(false, at!["update", "pinned-keys"], &error, hint);
        }
    }
    let (certificate, key) = (&update.client_certificate, &update.client_key);
    for (name, file) in [("client-certificate", certificate), ("client-key", key)] {
        if let Some(file) = file {
            report.require(
                file.starts_with('/'),
                at!["update", name],
                &format!("\"{file}\" does not begin with /"),
                "it is a file on the device, which each of them has for itself, e.g. \"/var/lib/identity/device.pem\"",
            );
        }
    }
    report.require(
        key.is_none() || certificate.is_some(),
        at!["update", "client-key"],
        "it is of no use without client-certificate",
        "name the certificate's file too",
    );
    let signer = &update.client_signer;
    report.require(
        signer.is_empty() || (certificate.is_some() && key.is_none()),
        at!["update", "client-signer"],
        "it goes with client-certificate, and takes the place of client-key",
        "name the certificate's file, and no file with a key",
    );
    if let Some(proxy) = &update.proxy {
        report.require(
            syntax::is_url(proxy, &["http"]),
            at!["update", "proxy"],
            &format!("\"{proxy}\" is no http:// address"),
            "e.g. \"http://proxy.example:3128\"; what goes through it is encrypted all the same",
        );
    }
}

fn health(report: &mut Report<'_>, health: &Health) {
    for (index, name) in health.units.iter().enumerate() {
        content::unit(report, at!["health", "units", index], name);
    }
    if let (Some(deadline), settle) = (health.deadline_seconds, health.settle_seconds.unwrap_or(5))
    {
        report.require(
            settle < deadline,
            at!["health", "deadline-seconds"],
            &format!("a boot can never be good: {settle} seconds of settling do not fit into a deadline of {deadline}"),
            "make `deadline-seconds` larger than `settle-seconds`",
        );
    }
    let mut names = BTreeSet::new();
    for (index, check) in health.checks.iter().enumerate() {
        report.require(
            !check.name.trim().is_empty(),
            at!["health", "checks", index, "name"],
            "a health check needs a name",
            "reports show it",
        );
        report.require(
            names.insert(check.name.as_str()),
            at!["health", "checks", index, "name"],
            &format!("there are two health checks \"{}\"", check.name),
            "give each a name of its own",
        );
        let program = check
            .command
            .first()
            .map(String::as_str)
            .unwrap_or_default();
        report.require(
            syntax::is_absolute_path(program),
            at!["health", "checks", index, "command"],
            &format!("health check \"{}\" has no program by absolute path", check.name),
            "the program, then its arguments: command = [\"/usr/bin/test\", \"-e\", \"/run/ready\"]",
        );
        report.require(
            check.timeout_seconds > 0,
            at!["health", "checks", index, "timeout-seconds"],
            &format!("health check \"{}\" has no time to run", check.name),
            "one second or more",
        );
    }
}
