#!/usr/bin/env bash
# Prepares what the tests of the stock page and of foreign clients run: Chromium, Node.js and Python from the system
# (installed with apt where this runs as root), the page and the clients from their registries, in the versions pinned
# here and beside this file. Everything else lands in the folder given, or target/test-tools. A second run does nothing.
set -euo pipefail

PAGES="1.35.9 1.27.10" # comfyui-frontend-package: the pages of ComfyUI 0.8.0 and 0.3.64

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=${1:-$here/../../target/test-tools}
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
exec 9>"$tools/.lock"
flock 9 # one at a time

fail() { echo "test tools: $*" >&2; exit 1; }

# need WHAT PACKAGES: installs PACKAGES, or says who has to.
apt_updated=
need() {
    local command="apt-get install -y --no-install-recommends $2"
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail "$1 is missing; install it with: $command"
    echo "test tools: $1 is missing: $command"
    [ -n "$apt_updated" ] || apt-get update -qq || fail "apt-get update failed, so $1 could not be installed"
    apt_updated=yes
    DEBIAN_FRONTEND=noninteractive $command >/dev/null || fail "$1 could not be installed with: $command"
}

node_is_new_enough() { command -v npm >/dev/null && [ "$(node -p 'process.versions.node.split(".")[0]' || echo 0)" -ge 18 ]; }
python_has_venv() { python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }
chromium_runs() { chromium --version >/dev/null 2>&1; }

chromium_runs || need "Chromium" chromium
node_is_new_enough || need "Node.js 18 or newer with npm" "nodejs npm"
python_has_venv || need "Python 3.10 or newer with venv" "python3 python3-venv"
chromium_runs || fail "there is a chromium, but \`chromium --version\` fails"
node_is_new_enough || fail "Node.js is older than 18, which the test clients need: install a newer one"
python_has_venv || fail "python3 is older than 3.10 or has no venv, which the test clients need: install a newer one"

# done_before PART INPUTS: whether PART was made of the same INPUTS. made PART INPUTS: it is now.
done_before() { [ "$(cat "$tools/$1/.made-of" 2>/dev/null)" = "$2" ]; }
made() { echo "$2" >"$tools/$1/.made-of"; }

clients=$(cat "$here/requirements.txt" <(python3 --version) | sha256sum)
if ! done_before python "$clients"; then
    echo "test tools: Python clients"
    python3 -m venv --clear "$tools/python"
    "$tools/python/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt" ||
        fail "pip could not fetch the Python clients"
    made python "$clients"
fi

for version in $PAGES; do
    if ! done_before "page-$version" "$version"; then
        echo "test tools: the stock page $version"
        rm -rf "$tools/page-$version"
        "$tools/python/bin/pip" install -q --disable-pip-version-check --no-deps --no-compile \
            --target "$tools/page-$version" "comfyui-frontend-package==$version" ||
            fail "pip could not fetch comfyui-frontend-package $version"
        made "page-$version" "$version"
    fi
done

modules=$(cat "$here/package.json" "$here/package-lock.json" | sha256sum)
if ! done_before node "$modules"; then
    echo "test tools: Node.js clients and the driver of Chromium"
    rm -rf "$tools/node"
    mkdir "$tools/node"
    cp "$here/package.json" "$here/package-lock.json" "$tools/node"
    npm ci --prefix "$tools/node" --ignore-scripts --no-audit --no-fund --loglevel error >/dev/null ||
        fail "npm could not fetch the Node.js clients"
    made node "$modules"
fi
