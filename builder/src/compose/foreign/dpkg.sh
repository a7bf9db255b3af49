#!/.treeline/bin/dash
# Stands before dpkg in the search path while a tree for another architecture is made. Installing is taken apart:
# packages are unpacked first, and while they are configured, this machine's interpreters stand where scripts
# name them by their path. What the tree's dpkg would say is always said by the tree's dpkg.
case "$1" in
--compare-versions) exec /.treeline/libexec/dpkg "$@" ;;
--install) ;;
*) exec /usr/bin/dpkg "$@" ;;
esac
set -e
shift
options=
while :; do
	case "$1" in
	-*)
		options="$options $1"
		shift
		;;
	*) break ;;
	esac
done
# Options are words without blanks.
/usr/bin/dpkg --unpack $options "$@"
for name in bash dash mawk perl; do
	[ -f "/usr/bin/$name" ] && [ -f "/.treeline/bin/$name" ] || continue
	mv "/usr/bin/$name" "/.treeline/aside/$name"
	ln -s "/.treeline/bin/$name" "/usr/bin/$name"
done
/usr/bin/dpkg --configure $options --pending
for file in /.treeline/aside/*; do
	[ -e "$file" ] || continue
	mv -f "$file" "/usr/bin/${file##*/}"
done
