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

# Whether $1 is a directory or a file of this computer, or in one. `binds` are their places, a line each.
is_bound() {
    real=$(cd -P "$1" 2> /dev/null && pwd) || real=$1
    while IFS= read -r bind; do
        [ -n "$bind" ] || continue
        case $1/ in "${bind%/}"/*) return 0 ;; esac
        case $real/ in "${bind%/}"/*) return 0 ;; esac
    done << END
$binds
END
    return 1
}

# Whether there is one below $1.
binds_below() {
    while IFS= read -r bind; do
        case $bind in "$1"/*) return 0 ;; esac
    done << END
$binds
END
    return 1
}
