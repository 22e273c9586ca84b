package debian

import (
	"context"
	"os"
)

// Mirror is the archive that a pull would use, from the host's apt settings or
// LABCTL_DEBIAN_MIRROR. The error wraps ErrHostLacks when there is none, or no
// key to check it with.
func Mirror(ctx context.Context) (string, error) {
	host, err := readHost(ctx)
	if err != nil {
		return "", err
	}
	src, err := host.origin(os.Getenv("LABCTL_DEBIAN_MIRROR"))
	return src.uri, err
}
