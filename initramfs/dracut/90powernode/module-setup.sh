#!/bin/bash
# The dracut module that makes the root of a node's modules. It is taken where it is asked for, and
# then the kernel command line needs no root=:
#
#   dracut --no-hostonly --add powernode IMAGE
#
# It expects powernode-agent in the path, the trust policy and, if there is one, boot.yaml in
# /etc/powernode, and takes the system's CA certificates along.

check() {
    require_binaries powernode-agent || return 1
    [ -e "${dracutsysrootdir-}/etc/powernode/trust.yaml" ] || {
        derror "powernode: there is no /etc/powernode/trust.yaml; without a trust policy nothing boots"
        return 1
    }
    return 255
}

depends() {
    echo systemd-initrd
}

# The agent loads what the machine's devices ask for itself; udev may have been faster. Modules that
# this kernel doesn't have are left out.
installkernel() {
    local modules
    modules=$(grep -v '^#' "${dracutsysrootdir-}/usr/share/powernode/initramfs-modules")
    # shellcheck disable=SC2086
    hostonly='' instmods $modules
}

install() {
    local file
    inst_binary powernode-agent /usr/bin/powernode-agent
    find "${dracutsysrootdir-}/etc/powernode" -type f -print0 | while IFS= read -r -d '' file; do
        inst_simple "${file#"${dracutsysrootdir-}"}"
    done
    inst_simple /etc/ssl/certs/ca-certificates.crt
    inst_hook cmdline 90 "$moddir/parse-powernode.sh"
    inst_simple "$moddir/powernode-boot.service" "$systemdsystemunitdir/powernode-boot.service"
    mkdir -p "$initdir$systemdsystemunitdir/initrd-root-fs.target.requires"
    ln -sf ../powernode-boot.service "$initdir$systemdsystemunitdir/initrd-root-fs.target.requires/powernode-boot.service"
}
