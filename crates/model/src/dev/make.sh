# Run as root in a machine: makes sure that somebody can work there. What is there already stays as it is. What is in their
# home they write themselves: where they may lead root by links of theirs, it has no business.
# Lines before this one say of whom: user, uid, shell, groups, sudo, hash.

# Puts what "$2…" makes of the lines of file $1 in the file's place, whole or not at all.
rewrite() {
    file=$1
    shift
    rm -f "$file.stead"
    case $file in
        *shadow) mask=077 ;;
        *) mask=022 ;;
    esac
    [ -e "$file" ] || (umask "$mask" && : > "$file") || refuse "cannot write $file" "is its disk read-only?"
    [ "$("$@" < "$file")" = "$(cat "$file")" ] && return
    cp -p "$file" "$file.stead" && "$@" < "$file" > "$file.stead" ||
        refuse "cannot write $file" "is its disk full, or read-only?"
    # What is mounted cannot be replaced, only written over.
    mv -f "$file.stead" "$file" 2> /dev/null || { cat "$file.stead" > "$file" && rm -f "$file.stead"; } ||
        refuse "cannot write $file" "is it mounted read-only?"
}

# Writes the lines that it reads, with $1 where the name $2 was; or before the first one whose id is $3, as the first one
# is whom an id stands for. Who had the id keeps it.
with_line() {
    placed=
    while IFS= read -r line || [ -n "$line" ]; do
        name=${line%%:*}
        id=${line#*:}
        id=${id#*:}
        id=${id%%:*}
        if [ -z "$placed" ] && { [ "$name" = "$2" ] || [ "$id" = "$3" ]; }; then
            printf '%s\n' "$1" || return 1
            placed=yes
        fi
        [ "$name" = "$2" ] || printf '%s\n' "$line" || return 1
    done
    [ -n "$placed" ] || printf '%s\n' "$1"
}

# Writes the groups that it reads, with the user in $1.
with_member() {
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            "$1":*)
                case ",${line##*:}," in
                    *",$user,"*) ;;
                    ,,) line=$line$user ;;
                    *) line=$line,$user ;;
                esac ;;
        esac
        printf '%s\n' "$line" || return 1
    done
}

# Whether a group has this id.
is_group() {
    while IFS=: read -r name password id members; do
        [ "$id" = "$1" ] && return 0
    done < /etc/group
    return 1
}

# The places below $1 at which something is mounted.
mounts_below() {
    while read -r mount parent device root at rest; do
        case $at in
            *\\*) ;;
            "$1"/*) printf '%s\n' "$at" ;;
        esac
    done < /proc/self/mountinfo
}

owner_of() {
    ls -nd "$1" | { read -r mode links owner rest && printf '%s\n' "$owner"; }
}

# Programs that are missing, and the packages that have them.
programs='' packages=''
manager=''
for each in apt-get dnf apk zypper pacman; do
    if has "$each"; then
        manager=$each
        break
    fi
done

# A program, its package, and what pacman calls that.
need() {
    has "$1" && return
    programs="$programs $1"
    case $manager in
        pacman) packages="$packages $3" ;;
        *) packages="$packages $2" ;;
    esac
}

install() {
    case $manager in
        apt-get)
            DEBIAN_FRONTEND=noninteractive
            export DEBIAN_FRONTEND
            apt-get -q update && apt-get -q -y -o DPkg::Lock::Timeout=300 --no-install-recommends install "$@" ;;
        dnf) dnf -y --setopt=install_weak_deps=False install "$@" ;;
        apk) apk add --no-cache "$@" ;;
        zypper) zypper --non-interactive install --no-recommends "$@" ;;
        # A part of it may not fit the older rest.
        pacman) pacman -Syu --noconfirm --needed "$@" ;;
    esac
}

case $shell in
    '') ;;
    *) need "$shell" "${shell##*/}" "${shell##*/}" ;;
esac
[ -z "$sudo" ] || need sudo sudo sudo
need sshd openssh-server openssh
if [ -n "$programs" ]; then
    other='use an image that has them'
    [ -z "$sudo" ] || other="$other, or write \`sudo: false\` for a machine without sudo"
    [ -n "$manager" ] || refuse "this machine lacks$programs, and none of apt-get, dnf, apk, zypper and pacman to install$packages" "$other"
    # One word each: they have no spaces.
    install $packages < /dev/null || refuse "this machine lacks$programs, and $manager could not install$packages" "does it reach its packages? Or $other"
    for each in $programs; do
        has "$each" || refuse "$manager installed$packages, and there is still no $each" "$other"
    done
fi
if [ -z "$shell" ]; then
    for shell in /bin/bash /usr/bin/bash /bin/sh; do
        [ -x "$shell" ] && break
    done
    usual=yes
else
    usual=
fi

# The account. One of the image that has the name is taken over; one that has the id stays, and is the same person.
home=/home/$user comment='' before=''
if old=$(line_of "$user" /etc/passwd); then
    IFS=: read -r name password before group comment home old_shell << END
$old
END
    if [ "$before" != "$uid" ] && { [ "$before" -lt 1000 ] || [ "$before" -ge 65534 ]; }; then
        refuse "\`$user\` is an account of this machine's system, with the id $before" "name another one: \`dev: { user: … }\`"
    fi
    case $old_shell in
        '' | */nologin | */false) ;;
        *) [ -n "$usual" ] && [ -x "$old_shell" ] && shell=$old_shell ;;
    esac
    [ -n "$home" ] && [ "$home" != / ] || home=/home/$user
fi
[ -e /etc/group ] || : > /etc/group
gid=$uid
if old=$(line_of "$user" /etc/group); then
    gid=${old#*:}
    gid=${gid#*:}
    gid=${gid%%:*}
else
    rewrite /etc/group with_line "$user:x:$gid:" "$user" "$gid"
    [ ! -e /etc/gshadow ] || rewrite /etc/gshadow with_line "$user:!::" "$user" -
fi
# First, so that a run that is cut off here knows whose they were. Files of this computer are whose they are.
if [ -n "$before" ] && [ "$before" != "$uid" ] && [ -d "$home" ]; then
    if is_bound "$home" || binds_below "$home"; then
        refuse "\`$user\` has the id $before in this machine's image, and files of this computer are mounted in $home" \
            "write \`uid: $before\`, or another \`user\`"
    fi
    find "$home" -xdev -user "$before" -exec chown -h "$uid:$gid" {} + ||
        refuse "cannot give the files in $home to the new id of \`$user\`" "has the machine \`find\`?"
fi
password='*'
if [ -e /etc/shadow ] || [ "$hash" != '*' ]; then
    password=x
    rewrite /etc/shadow with_line "$user:$hash::0:99999:7:::" "$user" -
fi
rewrite /etc/passwd with_line "$user:$password:$uid:$gid:$comment:$home:$shell" "$user" "$uid"

free=999
for group in $groups; do
    if ! line_of "$group" /etc/group > /dev/null; then
        while is_group "$free"; do free=$((free - 1)); done
        rewrite /etc/group with_line "$group:x:$free:" "$group" -
        [ ! -e /etc/gshadow ] || rewrite /etc/gshadow with_line "$group:!::" "$group" -
    fi
    rewrite /etc/group with_member "$group"
    [ ! -e /etc/gshadow ] || rewrite /etc/gshadow with_member "$group"
done

# The home. One that is a directory of this computer is somebody's already.
if ! is_bound "$home"; then
    no_home="cannot make $home"
    [ -d "$home" ] || mkdir -p "$home" || refuse "$no_home" "is the machine's disk read-only?"
    if [ "$(owner_of "$home")" != "$uid" ]; then
        chown "$uid:$gid" "$home" && chmod 700 "$home" || refuse "$no_home" "may its owner be changed?"
    fi
    # What was made to mount something on is root's, and what is above it is the user's to write.
    real_home=$(real_of "$home")
    mounts_below "$real_home" | while IFS= read -r at; do
        at=${at%/*}
        while [ "$at" != "$real_home" ] && ! is_bound "$at"; do
            # The directory itself, wherever a link of the user's leads by now.
            (cd -P "$at" && [ "$(pwd -P)" = "$at" ] && [ "$(owner_of .)" = 0 ] && chown "$uid:$gid" .) || :
            at=${at%/*}
        done
    done
fi

# Rights. Files with a dot in their names are passed over there.
rights=/etc/sudoers.d/stead-dev
if [ -n "$sudo" ]; then
    mkdir -p -m 750 /etc/sudoers.d && rm -f "$rights.new" &&
        (umask 0337 && printf '%s ALL=(ALL:ALL) NOPASSWD: ALL\n' "$user" > "$rights.new") ||
        refuse "cannot write $rights" "is its disk full, or read-only?"
    ! has visudo || visudo -cqf "$rights.new" || refuse "sudo does not take what $rights would say" "\`visudo -c\` in the machine may say more"
    mv -f "$rights.new" "$rights" || refuse "cannot write $rights" "is its disk full?"
else
    rm -f "$rights"
fi
! has restorecon || restorecon -R /etc/passwd /etc/group /etc/shadow /etc/gshadow /etc/sudoers.d 2> /dev/null
! has restorecon || is_bound "$home" || restorecon "$home" 2> /dev/null

# Where an init keeps services sshd is one; elsewhere each login by `stead ssh` has its own.
if [ -d /run/systemd/system ] && has systemctl; then
    if ! systemctl --quiet is-active ssh.service sshd.service ssh.socket; then
        ! has ssh-keygen || ssh-keygen -A > /dev/null
        unit=sshd.service
        systemctl cat ssh.service > /dev/null 2>&1 && unit=ssh.service
        systemctl --quiet enable --now "$unit" || refuse "$unit does not start" "\`systemctl status $unit\` in the machine"
    fi
elif [ -d /run/openrc ] && has rc-service; then
    if ! rc-service sshd status > /dev/null 2>&1; then
        rc-update -q add sshd default
        rc-service sshd start || refuse "sshd does not start" "\`rc-service sshd start\` in the machine"
    fi
fi
exit 0
