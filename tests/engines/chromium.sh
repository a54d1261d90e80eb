#!/usr/bin/env bash
# Chromium for the tests of pages: prints the path of one, installed where it is missing (Debian, as root).
#
#   chromium.sh FOLDER      FOLDER takes the log of the installation
#
# Status 77: it cannot be had here, for the reason on standard error.
set -euo pipefail
folder=$1

for program in chromium chromium-browser google-chrome; do
    command -v "$program" && exit 0
done
cannot() {
    echo "$1" >&2
    exit 77
}
command -v apt-get >/dev/null || cannot "no chromium here, and no apt-get to install it with"
[ "$(id -u)" = 0 ] || cannot "no chromium here, and only root can install it"
export DEBIAN_FRONTEND=noninteractive
{ apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium; } >"$folder/install.log" 2>&1 ||
    cannot "chromium cannot be installed: $(tail -n 1 "$folder/install.log")"
command -v chromium
