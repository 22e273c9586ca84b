#!/bin/sh
# Makes the samples anew, one archive for each kernel and architecture, by labctl
# (the first argument, or the one on PATH): ./record.sh ../../../../../bin/labctl
set -e
cd "$(dirname "$0")"
labctl=${1:-labctl}
for arch in amd64 arm64; do
	for kernel in 5.10 6.1 6.12 7.2; do
		"$labctl" exec -q --arch "$arch" --kernel "$kernel" \
			--get "out.tar.zst:$PWD/$kernel-$arch.tar.zst" -- ./record.go out.tar.zst
	done
done
