package debian

import (
	"context"
	"os"
)

// Mirror returns the URL of the archive that a pull would use, from the host's apt
// settings or LABCTL_DEBIAN_MIRROR. The error wraps ErrHostLacks if there is none,
// or no key to verify it with.
func Mirror(ctx context.Context) (string, error) {
	host, err := readHost(ctx)
	if err != nil {
		return "", err
	}
	src, err := host.origin(os.Getenv("LABCTL_DEBIAN_MIRROR"))
	return src.uri, err
}
