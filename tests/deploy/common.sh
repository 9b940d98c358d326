# What run and grow share: machines, steps and requests. They source it with a Debian and a folder.
here=$(dirname "$(realpath "$0")")
checkout=$(realpath "$here/../..")
folder=${2:-/var/tmp/gourmious-deploy}
case ${1:-} in
13) suite=trixie ;;
12) suite=bookworm ;;
*)
    echo "Name the Debian: $0 13, or $0 12" >&2
    exit 2
    ;;
esac
host=gourmious.example
client=()          # what runs a program where the browser is
declare -A machines # the first process of each, by its name

# pip finds this machine's registry by these variables, and by the files that make_system copies.
environment=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive)
mapfile -t -O "${#environment[@]}" environment < <(env | grep '^PIP_')

begin() {
    mkdir -p "$folder"
    : >"$folder/steps.tsv"
    : >"$folder/console.log"
    resolve 127.0.0.1
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 30 -subj "/CN=$host" \
        -addext "subjectAltName=DNS:$host,DNS:bistro.example" \
        -keyout "$folder/key.pem" -out "$folder/certificate.pem" 2>/dev/null
}

# Make a bare Debian in a folder with the name of the machine.
make_system() {
    local root=$folder/$1 sources=/etc/apt/sources.list.d/debian.sources codename
    machines[$1]=
    if [ ! -e "$folder/$suite.tar" ]; then
        rm -rf "$root"
        debootstrap --variant=minbase --include=ca-certificates,dbus,systemd-sysv "$suite" "$root" \
            "$(sed -n 's/^URIs: *//p' $sources | head -n 1)" >"$folder/debootstrap.log"
        tar -C "$root" -cf "$folder/$suite.tar.new" .
        mv "$folder/$suite.tar.new" "$folder/$suite.tar"
    fi
    rm -rf "$root"
    mkdir "$root"
    tar -C "$root" -xf "$folder/$suite.tar"
    rm -f "$root/etc/apt/sources.list"
    codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    sed "s/$codename/$suite/g" $sources >"$root$sources"
    cp /etc/apt/apt.conf.d/99* "$root/etc/apt/apt.conf.d" || true
    cp /etc/hosts /etc/resolv.conf "$root/etc"
    cp -r /usr/local/share/ca-certificates "$root/usr/local/share"
    chroot "$root" update-ca-certificates &>/dev/null
    [ ! -e /etc/pip.conf ] || cp /etc/pip.conf "$root/etc"
    [ ! -e ~/.config/pip ] || { mkdir -p "$root/root/.config" && cp -r ~/.config/pip "$root/root/.config"; }
}

# Clone the last commit of this checkout to a machine, and push there to a repository of its own.
clone_checkout() {
    local root=$folder/$1/root
    git clone --quiet --bare "$checkout" "$root/origin.git"
    git clone --quiet "$root/origin.git" "$root/gourmious"
    git -C "$root/gourmious" remote set-url origin /root/origin.git
    git -C "$root/gourmious" config user.name Operator
    git -C "$root/gourmious" config user.email "operator@$host"
    cp "$folder/certificate.pem" "$folder/key.pem" "$folder/$1/etc/ssl"
}

# Boot a machine, with further options of systemd-nspawn.
boot() {
    local name=$1 options hierarchy
    # pip's settings may name folders in /opt.
    options=(--quiet --boot --directory="$folder/$name" --machine="gourmious-$name" --resolv-conf=off --bind-ro=/opt)
    if [ ! -d /run/systemd/system ]; then
        # No systemd of the host gives the machine a control group of its own.
        options+=(--register=no --keep-unit)
        for hierarchy in /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
            mkdir -p "$hierarchy/gourmious-$name"
            echo $$ >"$hierarchy/gourmious-$name/cgroup.procs"
        done
    fi
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 setsid systemd-nspawn "${options[@]}" "${@:2}" </dev/null >>"$folder/console.log" 2>&1 &
    machines[$name]=$!
    until on "$name" systemctl is-system-running --wait 2>/dev/null | grep -qE 'running|degraded'; do sleep 0.2; done
}

# Run a command on a machine, and never on the host: its first process must have another root.
on() {
    local leader
    leader=$(pgrep --parent "${machines[$1]}" | head -n 1)
    [ "$(stat -Lc %d:%i "/proc/${leader:-self}/root")" = "$(stat -Lc %d:%i "$folder/$1")" ] || return
    nsenter --all --target "$leader" env --ignore-environment "${environment[@]}" "${@:2}"
}

switch_off() {
    on "$1" systemctl poweroff
    wait "${machines[$1]}" || true
}

clean_up() {
    local name
    [ -z "${watch:-}" ] || kill "$watch" || true
    for name in "${!machines[@]}"; do kill "${machines[$name]}" 2>/dev/null || true; done
    wait
    for name in "${!machines[@]}"; do rm -rf --one-file-system "${folder:?}/$name"; done
}

# The steps are functions. Each tries what it did, and ends the run if that is wrong.
step() {
    local began=$EPOCHREALTIME
    printf '\n=== %s\n' "$1"
    "${@:2}"
    printf '%s\t%s\t%s\n' "$1" "$began" "$EPOCHREALTIME" >>"$folder/steps.tsv"
}

expect() {
    "$@" || { echo "This is not so: $*" >&2 && exit 1; }
}

# Let the names of the sites lead to this address, as DNS does.
resolve() {
    echo "$1" >"$folder/address"
}

request() {
    local address
    address=$(<"$folder/address")
    "${client[@]}" curl --silent --show-error --fail --max-time 60 --cacert "$folder/certificate.pem" \
        --resolve "$host:443:$address" --resolve "bistro.example:443:$address" "$@"
}

post() {
    request --cookie __Host-csrftoken=tokentokentokentokentokentokento --header "Origin: https://$host" \
        --header "X-CSRFToken: tokentokentokentokentokentokento" "$@"
}

shows() {
    request "https://$host/" | grep "$1" >/dev/null
}

# The page of the dish has its photos, and all that it names is there: pictures, styles and scripts.
photo_is_there() {
    local page paths
    page=$(request "https://$host/dishes/1/")
    mapfile -t paths < <(grep -oE '/(media|static)/[^" ]+' <<<"$page" | sort -u)
    grep -q /media/ <<<"${paths[*]}"
    request --fail-early "${paths[@]/#/https://$host}" >/dev/null
}

upload_to() {
    post --form "id=$1" --form "picture=@$checkout/.readme/during.png" --header 'Accept: application/xml' "https://$host/upload"
}

upload() {
    post --output /dev/null --data 'name=Bouillabaisse&restaurant=Chez+Fonfon' "https://$host/dishes/new"
    upload_to 1
    expect photo_is_there
}

begin_watch() {
    "${client[@]}" "$here/watch.py" $host "$folder" &
    watch=$!
}

# Let watch.py print its table.
end_watch() {
    kill "$watch"
    wait "$watch"
    watch=
}

commit() {
    on "$1" git -C /root/gourmious commit --quiet --all --message "$2"
    on "$1" git -C /root/gourmious push --quiet
}
