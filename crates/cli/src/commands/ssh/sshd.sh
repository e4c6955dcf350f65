# Run in a machine as its root: becomes an sshd that serves the one connection which is its standard input and output.
# All that it is told is in a directory of its own below /run. Nothing in /etc is read of it, nor changed.
set -u
umask 022
refuse() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

ids=0
while read -r first outside count; do
    ids=$((ids + count))
done < /proc/self/uid_map
[ "$ids" -gt 1 ] || refuse "machine \`$STEAD_MACHINE\` has a single id, and sshd needs several" \
    "\`stead doctor\` says how this user's containers get more, under \`subordinate ids\`; \`stead shell $STEAD_MACHINE\` works as it is"

sshd=$(PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"; command -v sshd)
if [ -z "$sshd" ]; then
    for words in "apt-get install openssh-server" "apk add openssh-server" "dnf install openssh-server" \
        "zypper install openssh-server" "pacman -S openssh"; do
        command -v "${words%% *}" > /dev/null || continue
        refuse "machine \`$STEAD_MACHINE\` has no sshd" "\`stead exec -it $STEAD_MACHINE $words\`; it need not run as a service"
    done
    refuse "machine \`$STEAD_MACHINE\` has no sshd" "use an image with OpenSSH's server; \`stead shell $STEAD_MACHINE\` works without"
fi

if command -v id > /dev/null && ! id "$STEAD_USER" > /dev/null 2>&1; then
    refuse "there is no user \`$STEAD_USER\` in machine \`$STEAD_MACHINE\`" "name one that is there, such as \`root\`"
fi

own=/run/stead-ssh
# The other one is where Debian's sshd wants to be locked up, and elsewhere harms nobody.
mkdir -p "$own" /run/sshd || refuse "nothing can be written below /run in machine \`$STEAD_MACHINE\`" "mount a tmpfs there"
# Whole or not at all: others may log in just now.
put() {
    (umask "$3" && printf '%s\n' "$2" > "$own/$1.$$") && mv "$own/$1.$$" "$own/$1" ||
        refuse "nothing can be written below /run in machine \`$STEAD_MACHINE\`" "mount a tmpfs there"
}
put host-key "$STEAD_HOST_KEY" 077
put authorized-keys "$STEAD_IDENTITY" 022
put sshd-config "HostKey $own/host-key
AuthorizedKeysFile $own/authorized-keys
AuthenticationMethods publickey
PermitRootLogin prohibit-password
UsePAM yes
AcceptEnv LANG LC_* COLORTERM
PrintMotd no
Subsystem sftp internal-sftp
LogLevel ERROR" 077
unset STEAD_HOST_KEY STEAD_IDENTITY STEAD_MACHINE STEAD_USER
exec "$sshd" -i -e -f "$own/sshd-config"
