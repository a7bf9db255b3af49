#!/bin/sh
# mmdebstrap's hook after the packages are installed; $1 is the tree. Takes out what the hook before put in.
set -e
root=$1
[ -e "$root/.treeline" ] || exit 0
if grep -l '^/usr/lib/x86_64-linux-gnu' "$root"/var/lib/dpkg/info/*.list >&2; then
	echo "these packages have files in /usr/lib/x86_64-linux-gnu, which was in use" >&2
	exit 1
fi
rm -r "$root/.treeline"
rm "$root/usr/lib/x86_64-linux-gnu"
rm "$root/usr/lib64/ld-linux-x86-64.so.2"
# Left alone where the architecture has a directory of this name itself.
if rmdir "$root/usr/lib64" 2>/dev/null; then
	rm "$root/lib64"
fi
