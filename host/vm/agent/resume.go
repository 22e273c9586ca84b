package agent

import (
	"context"

	"labctl/guest/wire"
)

// Resume tells a guest that was restored from a snapshot what time it is and
// gives it random bytes of its own. The answer is what Hello would be now.
func (c *Client) Resume(ctx context.Context, p wire.ResumeParams) (wire.Hello, error) {
	var h wire.Hello
	if err := c.do(ctx, wire.OpResume, p, &h, nil, nil); err != nil {
		return h, err
	}
	c.heard(h)
	return h, checkVersion(h)
}
