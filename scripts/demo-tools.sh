# shellcheck shell=bash
# What scripts/demo is made of: printing, checking, servers, cleaning up. Sourced.
#
# Uses of the caller: name (of the lab), files (a directory of its own), keep, and its constants.
# shellcheck disable=SC2154

readonly WAIT=10 # seconds for any one condition
readonly -a SSH_OPTIONS=(-F none -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null
    -o GlobalKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout=5 -o IdentitiesOnly=yes)

bold='' green='' red='' dim='' plain=''
if [[ -t 1 ]]; then
    bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' dim=$'\e[2m' plain=$'\e[0m'
fi
steps=0
background=()
files=''
take_down='' # the lab is this demo's
failure_told=''

usage_error() {
    echo "demo: $*; see scripts/demo --help" >&2
    exit 2
}

die() {
    echo "demo: $*" >&2
    exit 1
}

step() {
    steps=$((steps + 1))
    printf '\n%s%d. %s%s\n' "$bold" "$steps" "$*" "$plain"
}

tell() { printf '   %s\n' "$*"; }
show() { printf '   %s$ %s%s\n' "$dim" "$*" "$plain"; }
good() { printf '   %s✓ %s%s\n' "$green" "$*" "$plain"; }
indent() { sed 's/^/     /'; }

bad() {
    failure_told=1
    printf '   %s✗ %s%s\n' "$red" "$*" "$plain"
    exit 1
}

# Prints a command, then what it prints.
run() {
    local shown=("$@")
    if [[ ${shown[0]} == lab ]]; then shown[0]="netns/lab --name $name"; fi
    show "${shown[*]}"
    "$@" | indent
}

# Runs a command whose output must be TEXT.
expect() { # TEXT COMMAND...
    local text=$1 output
    shift
    output=$("$@" 2>&1) || bad "failed: $output"
    indent <<<"$output"
    [[ $output == "$text" ]] || bad "expected: $text"
}

# Brings the lab up. It is taken down also where a signal comes while it comes up.
lab_up() {
    take_down=1
    show "netns/lab --name $name up"
    lab up >"$files/up"
    indent <"$files/up"
    if ! grep -q "^lab $name is up after " "$files/up"; then
        take_down=''
        bad "somebody else has brought up a lab '$name' just now: it stays as it is"
    fi
}

# Waits for a condition, WAIT seconds at most.
await() { # WHAT COMMAND...
    local what=$1 end=$((SECONDS + WAIT))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || bad "waited $WAIT s in vain for $what"
        # Nobody writes into it: a short wait that ends with any signal.
        read -rt 0.02 _ <>"$files/never" || true
    done
}

lab() { netns/lab --name "$name" "$@"; }

ports_of() { # HOST
    lab status --json | jq -r --arg node "$1" '.nodes[] | select(.node == $node) | .ports[0] | "\(.[0])-\(.[1])"'
}

of_node() { # NODE FIELD
    lab status --json | jq -r --arg node "$1" --arg field "$2" '.nodes[] | select(.node == $node) | .[$field]'
}

address_of() { of_node "$1" address; }
mac_of() { of_node "$1" link_address; }
pid_of() { of_node "$1" pid; }

ended() { [[ $(pid_of "$1") == null ]]; }

# Whether the router's table has the set of a host.
knows_set_of() { # HOST
    lab arp -n >"$files/arp" && grep -qw -- "$(ports_of "$1")" "$files/arp"
}

in_range() { # PORT LOW-HIGH
    (($1 >= ${2%-*} && $1 <= ${2#*-}))
}

# Where a service of a node listens: hosts can use ports of their set only.
service_port() { # NODE web|ssh
    local node=$1 service=$2 first
    case $node in
    h*)
        first=$(ports_of "$node")
        first=${first%-*}
        if [[ $service == web ]]; then echo $((first + 80)); else echo $((first + 22)); fi
        ;;
    *) if [[ $service == web ]]; then echo "$HTTP_PORT"; else echo 22; fi ;;
    esac
}

# Starts sshd and a web server in each node. Keys and configuration are made for this demo.
start_servers() { # NODE...
    local node port pam=no
    mkfifo "$files/never"
    ssh-keygen -q -t ed25519 -N '' -f "$files/host-key"
    ssh-keygen -q -t ed25519 -N '' -f "$files/user-key"
    # A locked account can log in by key only where PAM decides.
    if [[ $(getent shadow root) == root:!* ]]; then pam=yes; fi
    mkdir -p /run/sshd
    for node in "$@"; do
        mkdir "$files/www-$node"
        echo "hello from $node" >"$files/www-$node/index.html"
        port=$(service_port "$node" ssh)
        cat >"$files/sshd-$node" <<END
Port $port
ListenAddress 0.0.0.0
HostKey $files/host-key
AuthorizedKeysFile $files/user-key.pub
PidFile $files/sshd-$node.pid
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM $pam
UseDNS no
PrintMotd no
END
        lab exec "$node" /usr/sbin/sshd -f "$files/sshd-$node" -E "$files/sshd-$node.log"
        lab exec "$node" busybox httpd -p "$(service_port "$node" web)" -h "$files/www-$node"
        await "sshd of $node" listens "$node" "$port"
        await "the web server of $node" listens "$node" "$(service_port "$node" web)"
    done
}

listens() { # NODE PORT
    [[ -n $(lab exec "$1" ss -Htln "( sport = :$2 )") ]]
}

ssh_from() { # NODE ADDRESS PORT COMMAND
    lab exec "$1" ssh "${SSH_OPTIONS[@]}" -i "$files/user-key" -p "$3" "root@$2" "$4"
}

# Starts to capture what FILTER selects, into $files/NODE.pcap. No function in between: $! is tcpdump itself.
capture() { # NODE DEVICE FILTER
    netns/lab --name "$name" exec "$1" tcpdump -Z root -U --immediate-mode -ni "$2" -w "$files/$1.pcap" "$3" \
        2>"$files/$1.tcpdump" &
    background+=($!)
    await "tcpdump in $1" grep -q listening "$files/$1.tcpdump"
}

end_captures() {
    kill "${background[@]}"
    wait "${background[@]}" 2>/dev/null || true
    background=()
}

# Prints the first COUNT captured packets that FILTER selects, one a line, or as tcpdump is told by OPTIONS.
captured() { # NODE COUNT FILTER OPTION...
    tcpdump -tn -c "$2" -r "$files/$1.pcap" "${@:4}" "$3" 2>/dev/null | sed 's/^\t//'
}

captured_any() { [[ -n $(captured "$1" 1 "$2") ]]; } # NODE FILTER

# PE-ARP messages about a port, as capture filters (docs/protocol.md): protocol address space, operation, port.
resolve_of() { echo "ether broadcast and arp[2:2] = 0x88b5 and arp[6:2] = 1 and arp[33] & 1 != 0 and arp[34:2] = $1"; }
reply_of() { echo "arp[2:2] = 0x88b5 and arp[6:2] = 2 and arp[19] & 1 != 0 and arp[20:2] = $1"; }
readonly LEGACY_ANSWER="arp[2:2] = 0x0800 and arp[6:2] = 2 and ether src $LEGACY_MAC"

# Whether the capture has the question for a port, then its owner's answer, and last legacy's answer to plain ARP.
has_resolution() { # PORT ASKER_MAC OWNER_MAC
    local senders
    senders=$(captured lan 3 "($(resolve_of "$1")) or ($(reply_of "$1")) or ($LEGACY_ANSWER)" -e | cut -d' ' -f1)
    [[ $senders == "$2"$'\n'"$3"$'\n'"$LEGACY_MAC" ]]
}

# Captures how a freshly started host finds the owner of a port, and then legacy.
capture_resolution() { # HOST PORT OWNER
    local asker owner
    asker=$(mac_of "$1") owner=$(mac_of "$3")
    local end=$((SECONDS + WAIT))
    while :; do
        capture lan lan arp
        capture legacy eth0 arp
        # A host with an empty table has to ask, unless the owner has said something meanwhile: then once more.
        lab restart "$1" >/dev/null
        lab exec "$1" curl -sS -m 5 "http://$SHARED:$2/" "http://$LEGACY/" >"$files/pages"
        end_captures
        ! has_resolution "$2" "$asker" "$owner" || return 0
        ((SECONDS < end)) || bad "$1 did not ask for port $2 within $WAIT s, or nobody answered"
    done
}

# Ends what the demo started, whatever happened. Nothing interrupts it: not a second Ctrl-C, nor a closed pipe.
clean_up() {
    local status=$?
    trap - EXIT
    trap '' HUP INT TERM PIPE
    if ((status > 0 && status < 128)) && [[ -z $failure_told ]]; then
        printf '   %s✗ a command failed%s\n' "$red" "$plain" 2>/dev/null || true
        status=1
    fi
    if ((${#background[@]} > 0)); then kill "${background[@]}" 2>/dev/null || true; fi
    if [[ -n $keep && $status -eq 0 ]]; then return; fi
    # Takes every process in the lab's namespaces with it, servers included.
    if [[ -n $take_down ]] && ! netns/lab --name "$name" down >/dev/null; then
        echo "demo: cannot take the lab down: try 'netns/lab --name $name down'" >&2 || true
        if ((status == 0)); then status=1; fi
    fi
    if [[ -n $files ]]; then rm -rf "$files"; fi
    if ((status == 0)) && compgen -G "/run/netns/$name-*" >/dev/null; then
        echo "demo: namespaces are left behind" >&2 || true
        status=1
    elif ((status == 0)); then
        printf 'The lab is down again, nothing is left behind.\n' 2>/dev/null || true
    fi
    exit "$status"
}
