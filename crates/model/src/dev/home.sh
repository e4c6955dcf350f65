# Run as the user in a machine, in which they are by now: their home is as new ones are, and the keys let them in.
# Lines before this one say of whom: user, keys.
# Writes the lines that it reads with the keys as the last ones, and without those that were there for this.
with_keys() {
    mine=
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            "# stead: begin") mine=yes ;;
            "# stead: end") mine= ;;
            *) [ -n "$mine" ] || printf '%s\n' "$line" || return 1 ;;
        esac
    done
    [ -z "$keys" ] || printf '# stead: begin\n%s\n# stead: end\n' "$keys"
}

account=$(line_of "$user" /etc/passwd) || refuse "there is no \`$user\`" "\`stead reset\` makes them anew"
IFS=: read -r name password id group comment home rest << END
$account
END

if is_bound "$home"; then
    [ -z "$keys" ] || printf 'note: %s is a directory of this computer: no keys are written there\n' "$home"
    exit 0
fi
# Files are put in place whole or not at all. Another machine may have the same home, on a volume of both.
work=$(mktemp -d "$home/.stead.XXXXXX") || refuse "cannot write $home" "is its disk full, or read-only?"
trap 'rm -rf "$work"' EXIT
trap 'exit 143' HUP INT TERM
for each in /etc/skel/* /etc/skel/.[!.]*; do
    to=$home/${each##*/}
    [ -e "$each" ] && [ ! -e "$to" ] && [ ! -L "$to" ] || continue
    if ! [ -r "$each" ] || ! cp -R "$each" "$work/new"; then
        printf 'note: %s is not copied\n' "$each"
    elif [ ! -e "$to" ] && ! mv "$work/new" "$to"; then
        refuse "cannot write $to" "is its disk full?"
    fi
    rm -rf "$work/new"
done
file=$home/.ssh/authorized_keys
[ -n "$keys" ] || [ -e "$file" ] || exit 0
if is_bound "$home/.ssh" || is_bound "$file" || [ -L "$home/.ssh" ] || [ -L "$file" ]; then
    [ -z "$keys" ] || printf 'note: %s is kept elsewhere: no keys are written there\n' "$file"
    exit 0
fi
[ -d "$home/.ssh" ] || mkdir -m 700 "$home/.ssh" || refuse "cannot make $home/.ssh" "is its disk full?"
[ ! -e "$file" ] || [ -f "$file" ] || refuse "$file is no file" "take it away"
old=/dev/null
[ ! -e "$file" ] || old=$file
(umask 077 && with_keys < "$old" > "$work/keys") && mv -f "$work/keys" "$file" ||
    refuse "cannot write $file" "is its disk full, or read-only?"
! has restorecon || restorecon -R "$home/.ssh" 2> /dev/null || :
