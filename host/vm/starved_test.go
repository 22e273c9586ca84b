package vm

import (
	"testing"
	"time"
)

func TestRemaining(t *testing.T) {
	const s = time.Second
	for _, tt := range []struct{ limit, passed, starved, want time.Duration }{
		{60 * s, 60 * s, 0, 0},
		{60 * s, 60 * s, 20 * s, 20 * s},
		{60 * s, 90 * s, 20 * s, -10 * s},
		{60 * s, 60 * s, 90 * s, 60 * s},   // threads wait at the same time
		{60 * s, 290 * s, 289 * s, 10 * s}, // no more than five times the limit
		{60 * s, 301 * s, 301 * s, -1 * s},
	} {
		if got := remaining(tt.limit, tt.passed, tt.starved); got != tt.want {
			t.Errorf("remaining(%v, %v, %v) = %v, want %v", tt.limit, tt.passed, tt.starved, got, tt.want)
		}
	}
}
