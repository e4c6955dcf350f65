# Both scripts begin with this.
set -u
umask 022
PATH="${PATH:-/bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
export PATH

refuse() {
    printf '%s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

# The line of file $2 whose name is $1.
line_of() {
    while IFS= read -r line || [ -n "$line" ]; do
        [ "${line%%:*}" = "$1" ] || continue
        printf '%s\n' "$line"
        return 0
    done < "$2"
    return 1
}

has() {
    command -v "$1" > /dev/null 2>&1
}

# Where $1 is, or will be, when no link leads there.
real_of() {
    (
        rest=
        at=${1%/}
        until cd -P "${at:-/}" 2> /dev/null; do
            rest=/${at##*/}$rest
            at=${at%/*}
        done
        at=$(pwd -P)
        printf '%s\n' "${at%/}$rest"
    )
}

# Whether $1 is a directory or a file of this computer, or in one. `binds` are their places, a line each.
is_bound() {
    real=$(real_of "$1")
    while IFS= read -r bind; do
        [ -n "$bind" ] || continue
        case $real/ in "$(real_of "$bind")"/*) return 0 ;; esac
    done << END
$binds
END
    return 1
}

# Whether there is one below $1.
binds_below() {
    real=$(real_of "$1")
    while IFS= read -r bind; do
        [ -n "$bind" ] || continue
        case $(real_of "$bind") in "$real"/*) return 0 ;; esac
    done << END
$binds
END
    return 1
}
