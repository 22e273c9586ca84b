package agent

import (
	"context"

	"labctl/guest/wire"
)

// Resume sends a guest that was restored from a snapshot the current time and its
// own random bytes. It returns the guest's current Hello.
func (c *Client) Resume(ctx context.Context, p wire.ResumeParams) (wire.Hello, error) {
	c.greeted.Store(true) // it said hello before it was saved: another is a restart
	var h wire.Hello
	if err := c.do(ctx, wire.OpResume, p, &h, nil, nil); err != nil {
		return h, err
	}
	c.heard(h)
	return h, checkVersion(h)
}
