#!/usr/bin/sh
# Names the device: each `?` of the pattern becomes a hexadecimal digit of its own, the same at every boot.
# usage: hostname PATTERN PRODUCT
# TREELINE_ROOT, if set, stands before every path.

set -fu

pattern=$1
product=$2
root=${TREELINE_ROOT:-}
stored=$root/etc/hostname
running=$root/proc/sys/kernel/hostname

fail() {
	echo "naming the device after $pattern: $1" >&2
	exit 1
}

# A name that somebody gave this device stays.
now=
if [ -f "$stored" ]; then
	read -r now <"$stored" || :
fi
case $now in
'' | "$pattern") ;;
*) exit 0 ;;
esac

id=
read -r id <"$root/etc/machine-id" || :
case $id in
'' | *[!0-9a-f]*) fail "/etc/machine-id has no identity" ;;
esac
# A hash, because the machine id itself is not for the network to see; with the product, as the id may
# outlive a change of products.
digits=$(printf '%s %s' "$id" "$product" | sha256sum) || fail "sha256sum failed"

name=
expanded=
rest=$pattern
while [ -n "$rest" ]; do
	char=${rest%"${rest#?}"}
	rest=${rest#?}
	if [ "$char" = '?' ]; then
		name=$name${digits%"${digits#?}"}
		digits=${digits#?}
		expanded=$expanded[0-9a-f]
	else
		name=$name$char
		expanded=$expanded$char
	fi
done

# systemd from 258 on has expanded the pattern by itself.
known=
read -r known <"$running" || :
# shellcheck disable=SC2254 # a pattern it is
case $known in
$expanded) exit 0 ;;
esac

echo "$name" >"$running" || fail "writing /proc/sys/kernel/hostname"
if ! { echo "$name" >"$stored.new" && chmod 644 "$stored.new" && mv -f "$stored.new" "$stored"; }; then
	rm -f "$stored.new"
	fail "writing /etc/hostname; the name is $name until the next boot"
fi
