#!/usr/bin/sh
# Finds the root file system, lets ostree-prepare-root arrange the deployment on it, hands over to it.
# Every failure reboots: during a trial the boot loader has counted this boot, and comes back to the
# deployment that was good. Messages go to the kernel's log, and so to every console.

PATH=/usr/bin
export PATH
set -f

say() {
	echo "<$1>initramfs: $2" >&3
}

fail() {
	say 3 "$1; rebooting in 3 s"
	sleep 3
	reboot -f
	# The first process ends: the kernel panics, and panic= reboots.
	exit 1
}

mount -t devtmpfs -o mode=0755 devtmpfs /dev || exit 1
exec 3>/dev/kmsg || exit 1
exec </dev/console >/dev/console 2>&1
mount -t proc proc /proc || fail "/proc cannot be mounted"
mount -t sysfs sysfs /sys || fail "/sys cannot be mounted"
mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs /run || fail "/run cannot be mounted"

root=
flags=ro
read -r arguments </proc/cmdline
for word in $arguments; do
	case $word in
	root=*) root=${word#root=} ;;
	rw) flags=rw ;;
	ro) flags=ro ;;
	esac
done

while read -r file parameters; do
	insmod "$file" $parameters || say 4 "module $file was not loaded"
done </usr/lib/modules/load

# Opening starts the watchdog, and closing without the letter V leaves it running: from here to the
# moment systemd takes it over, a hang ends in a reset. Every byte gives it all its time again, which on
# some is no more than 15 seconds.
if [ -c /dev/watchdog ]; then
	command exec 4>/dev/watchdog || exec 4>/dev/null
else
	exec 4>/dev/null
fi
feed() {
	echo >&4
}

# Prints the device of $root, nothing while it is not there.
device() {
	case $root in
	UUID=* | LABEL=*) findfs "$root" 2>/dev/null ;;
	/dev/*) [ -b "$root" ] && echo "$root" ;;
	esac
}

# Prints the seconds since the kernel started.
uptime() {
	read -r seconds rest </proc/uptime
	echo "${seconds%.*}"
}

case $root in
UUID=* | LABEL=* | /dev/*) ;;
'') fail "there is no root= among the kernel arguments" ;;
*) fail "root=$root is not known here: UUID=, LABEL= and /dev/ are" ;;
esac
say 6 "waiting for root $root"
begun=$(uptime)
until found=$(device) && [ -n "$found" ]; do
	feed
	[ $(($(uptime) - begun)) -lt 30 ] || fail "root device $root did not appear within 30 s"
	usleep 100000
done

feed
mount -t ext4 -o "$flags" "$found" /sysroot || fail "$found ($root) cannot be mounted"
feed
/usr/lib/ostree/ostree-prepare-root /sysroot || fail "the deployment cannot be prepared"
[ -e /sysroot/usr/lib/systemd/systemd ] || fail "the deployment has no system manager"
for dir in dev proc sys run; do
	mount -o move "/$dir" "/sysroot/$dir" || fail "/$dir cannot be moved into the deployment"
done
feed
exec switch_root /sysroot /sbin/init 3>&- 4>&-
