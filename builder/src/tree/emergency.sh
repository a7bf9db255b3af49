#!/usr/bin/sh
# The boot ended in emergency or rescue mode, and nobody can log in: says why, and reboots. During a trial
# the boot loader has counted this boot; otherwise the cause may pass, or somebody sees the console.
# usage: emergency SECONDS

seconds=$1

echo
echo "This system did not start, and root has no password to log in with."
echo "Failed units:"
timeout 10 systemctl list-units --failed --plain --no-legend --no-pager
echo "Last warnings:"
timeout 10 journalctl --boot --priority=warning --lines=20 --output=short-monotonic --no-pager
echo "Rebooting in $seconds s."
sleep "$seconds"
# If this fails, the unit fails, and that reboots too.
exec systemctl --no-block reboot
