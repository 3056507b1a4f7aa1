#!/bin/sh
# There is no root device: the root is made of the node's modules.
if [ -z "$root" ]; then
    root=powernode
    # shellcheck disable=SC2034
    rootok=1
fi
