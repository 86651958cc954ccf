#!/usr/bin/env bash
# A real Kubernetes cluster on this machine, for tests: etcd, API server, controllers, scheduler, DNS; and
# nodes with containerd, runc, kubelet and kube-proxy.
#
#   cluster.sh up N IMAGES...     starts it, with N nodes that have the images of these archives
#   cluster.sh kubectl ARGS...
#   cluster.sh kill-node I        SIGKILLs node I with all that runs on it
#   cluster.sh start-node I       starts it again
#   cluster.sh cut I, mend I      parts node I from all others, and joins it again
#   cluster.sh down               removes everything
#
# Each node has network, mount, pid and UTS namespaces of its own, the control plane a network namespace:
# all addresses (10.77.0.0/24 nodes, 10.78.I.0/24 pods of node I, 10.96.0.0/16 services) are inside, and
# no setting of the machine is changed. State and logs are in $POMPC_CLUSTER (default
# /tmp/pompc-cluster). Needs root and the Debian packages containerd runc containernetworking-plugins
# iptables; programs come from build.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
state=${POMPC_CLUSTER:-/tmp/pompc-cluster}
prefix=pompck  # Of namespaces and cgroups.
control=${prefix}cp
programs=$(cat "$state/programs" 2>/dev/null || true)

say() { printf 'cluster: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
in_control() { nsenter --net="/run/netns/$control" "$@"; }
kubectl() { KUBECONFIG=$state/kubeconfig in_control "$programs/hyperkube" kubectl "$@"; }
# background NAME COMMAND...: its log is $state/NAME.log.
background() {
  local name=$1
  shift
  setsid "$@" >"$state/$name.log" 2>&1 </dev/null &
  echo $! >>"$state/pids"
}
await() {  # SECONDS WHAT COMMAND...
  local seconds=$1 what=$2 end=$((SECONDS + $1))
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || die "$what: not within $seconds s (logs in $state)"
    sleep 0.2
  done
}

ended() { ! grep -qs '^State:[[:space:]]*[^ZX]' "/proc/$1/status"; }  # PID: or waits to be reaped.

networks() {  # N: the control plane's namespace with a bridge, the nodes' behind it, routes between pods.
  local i j node
  ip netns add "$control"
  ip -n "$control" link set lo up
  ip -n "$control" link add br0 type bridge
  ip -n "$control" addr add 10.77.0.1/24 dev br0
  ip -n "$control" link set br0 up
  in_control sysctl -qw net.ipv4.ip_forward=1
  for ((i = 1; i <= $1; ++i)); do
    node=${prefix}n$i
    ip netns add "$node"
    ip -n "$node" link set lo up
    ip -n "$control" link add "v$i" type veth peer name eth0 netns "$node"
    ip -n "$control" link set "v$i" master br0 up
    ip -n "$control" route add "10.78.$i.0/24" via "10.77.0.1$i"
    ip -n "$node" addr add "10.77.0.1$i/24" dev eth0
    ip -n "$node" link set eth0 up
    ip -n "$node" route add default via 10.77.0.1
    nsenter --net="/run/netns/$node" sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1
    for ((j = 1; j <= $1; ++j)); do
      [ "$i" = "$j" ] || ip -n "$node" route add "10.78.$j.0/24" via "10.77.0.1$j"
    done
  done
}

control_plane() {
  local token hyperkube=$programs/hyperkube
  token=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')
  (umask 077; echo "$token,admin,admin,system:masters" >"$state/tokens.csv")
  openssl genrsa -out "$state/account.key" 2048 2>/dev/null
  cat >"$state/kubeconfig" <<EOF
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://10.77.0.1:6443", insecure-skip-tls-verify: true}}]
users: [{name: admin, user: {token: $token}}]
contexts: [{name: test, context: {cluster: test, user: admin}}]
current-context: test
EOF
  background etcd nsenter --net="/run/netns/$control" "$hyperkube" etcd --data-dir="$state/etcd" \
    --unsafe-no-fsync --listen-client-urls=http://127.0.0.1:2379 \
    --advertise-client-urls=http://127.0.0.1:2379 --listen-peer-urls=http://127.0.0.1:2380
  background apiserver nsenter --net="/run/netns/$control" "$hyperkube" kube-apiserver \
    --etcd-servers=http://127.0.0.1:2379 --bind-address=10.77.0.1 --advertise-address=10.77.0.1 \
    --secure-port=6443 --cert-dir="$state/certs" --token-auth-file="$state/tokens.csv" \
    --authorization-mode=Node,RBAC --service-cluster-ip-range=10.96.0.0/16 \
    --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$state/account.key" \
    --service-account-signing-key-file="$state/account.key" --allow-privileged=true \
    --default-not-ready-toleration-seconds=5 --default-unreachable-toleration-seconds=5 \
    --kubelet-preferred-address-types=InternalIP
  await 120 "API server" kubectl get --raw /readyz
  background controllers nsenter --net="/run/netns/$control" "$hyperkube" kube-controller-manager \
    --kubeconfig="$state/kubeconfig" --leader-elect=false --bind-address=127.0.0.1 \
    --cert-dir="$state/certs" --service-account-private-key-file="$state/account.key" \
    --root-ca-file="$state/certs/apiserver.crt" --node-monitor-grace-period=16s \
    --controllers='*,-nodeipam,-cloud-node-lifecycle'
  background scheduler nsenter --net="/run/netns/$control" "$hyperkube" kube-scheduler \
    --kubeconfig="$state/kubeconfig" --leader-elect=false --bind-address=127.0.0.1 \
    --cert-dir="$state/certs"
  printf '.:53 {\n errors\n kubernetes cluster.local {\n  kubeconfig %s test\n }\n cache 2\n}\n' \
    "$state/kubeconfig" >"$state/Corefile"
  background dns nsenter --net="/run/netns/$control" "$programs/coredns" -conf "$state/Corefile"
}

cgroups_of() { local c; for c in cpu cpuacct cpuset memory devices freezer blkio pids systemd; do
  [ ! -d "/sys/fs/cgroup/$c" ] || echo "/sys/fs/cgroup/$c/$prefix.n$1"; done; }

start_node() {  # I
  local i=$1 node=$state/n$1 c f
  mkdir -p "$node/cni"
  # cgroup v1, a root for each node: kubelets remove the pods of cgroups that they do not know.
  for c in $(cgroups_of "$i"); do mkdir -p "$c"; done
  for f in cpus mems; do
    cat "/sys/fs/cgroup/cpuset/cpuset.$f" >"/sys/fs/cgroup/cpuset/$prefix.n$i/cpuset.$f"
  done
  cat >"$node/containerd.toml" <<EOF
version = 2
root = "$node/containerd"
state = "/run/containerd-state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "/run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_hugetlb_controller = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$node/cni"
EOF
  cat >"$node/cni/10-bridge.conflist" <<EOF
{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "cni0", "isGateway": true,
  "hairpinMode": true, "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam",
  "ranges": [[{"subnet": "10.78.$i.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
EOF
  cat >"$node/kubelet.yaml" <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$prefix.n$i
enforceNodeAllocatable: []
failSwapOn: false
failCgroupV1: false
oomScoreAdj: 0
address: 10.77.0.1$i
healthzPort: 0
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
clusterDNS: [10.77.0.1]
clusterDomain: cluster.local
resolvConf: ""
podLogsDir: $node/podlogs
evictionHard: {memory.available: 100Mi}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
nodeStatusUpdateFrequency: 2s
nodeLeaseDurationSeconds: 8
EOF
  cat >"$node/init.sh" <<EOF
#!/bin/bash
mount --make-rshared /
hostname n$i
# The kubelet insists on some kernel settings: it is shown them, the machine's stay as they are.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1; do
  file=$node/sysctl.\$(tr / . <<<"\${setting%=*}")
  echo "\${setting#*=}" >"\$file"
  mount --bind "\$file" "/proc/sys/\${setting%=*}"
done
mount -t tmpfs tmpfs /run
mount --make-rshared /run
containerd -c $node/containerd.toml >$node/containerd.log 2>&1 &
ctr="ctr -a /run/containerd.sock"
until \$ctr version >/dev/null 2>&1; do sleep 0.1; done
if ! \$ctr -n k8s.io images ls -q | grep -q localhost/pause:1; then
  for archive in $(cat "$state/images"); do \$ctr -n k8s.io images import "\$archive"; done
fi
$programs/hyperkube kubelet --config=$node/kubelet.yaml --kubeconfig=$state/kubeconfig \\
  --root-dir=$node/kubelet --cert-dir=$node/pki --hostname-override=n$i --node-ip=10.77.0.1$i \\
  >$node/kubelet.log 2>&1 &
$programs/hyperkube kube-proxy --kubeconfig=$state/kubeconfig --hostname-override=n$i \\
  --proxy-mode=iptables --cluster-cidr=10.78.0.0/16 --conntrack-max-per-core=0 --conntrack-min=0 \\
  >$node/kube-proxy.log 2>&1 &
wait
EOF
  chmod +x "$node/init.sh"
  # --kill-child: the end of this process is that of all processes of the node.
  setsid nsenter --net="/run/netns/${prefix}n$i" unshare --uts --mount --pid --fork --kill-child \
    --mount-proc --propagation private "$node/init.sh" >"$node/init.log" 2>&1 </dev/null &
  echo $! >"$node/pid"
}

kill_node() {  # I
  local pid c
  pid=$(cat "$state/n$1/pid" 2>/dev/null) || return 0
  pkill -KILL -P "$pid" || true  # The first process of its pid namespace: its end waits for all others'.
  await 60 "end of node n$1" ended "$pid"
  rm -f "$state/n$1/pid"
  for c in $(cgroups_of "$1"); do find "$c" -depth -type d -exec rmdir {} \; 2>/dev/null || true; done
}

up() {
  local n=$1 i
  shift
  [ "$(id -u)" = 0 ] || die "needs root, for namespaces"
  [ ! -e "$state" ] || die "$state exists: one is up, or cluster.sh down has to clean up first"
  programs=$("$here/build.sh")
  mkdir -p "$state"
  echo "$programs" >"$state/programs"
  printf '%s ' "$@" >"$state/images"
  networks "$n"
  control_plane
  for ((i = 1; i <= n; ++i)); do start_node "$i"; done
  for ((i = 1; i <= n; ++i)); do
    await 300 "node n$i" kubectl wait --for=condition=Ready "node/n$i" --timeout=5s
  done
  await 60 "default service account" kubectl get serviceaccount default
  say "up: $n nodes"
}

down() {
  local node pid name
  for node in "$state"/n[0-9]*; do [ ! -d "$node" ] || kill_node "${node##*/n}"; done
  if [ -f "$state/pids" ]; then
    # Without grace: the state is thrown away.
    while read -r pid; do kill -KILL "$pid" 2>/dev/null || true; done <"$state/pids"
    while read -r pid; do await 60 "end of process $pid" ended "$pid"; done <"$state/pids"
  fi
  for name in $(ip netns list | awk '{print $1}' | grep -E "^$prefix(cp|n[0-9]+)$" || true); do
    ip netns del "$name"
  done
  rm -rf "$state"
}

case ${1:-} in
  up) shift; up "$@" ;;
  down) down ;;
  kubectl) shift; kubectl "$@" ;;
  start-node) start_node "$2" ;;
  kill-node) kill_node "$2" ;;
  cut) ip -n "$control" link set "v$2" down ;;
  mend) ip -n "$control" link set "v$2" up ;;
  *) sed -n '2,/^set/p' "${BASH_SOURCE[0]}" | grep '^#' | cut -c3- >&2; exit 2 ;;
esac
