package cachedir

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
)

// sumMember is the last member of an object that MarshalSummed made.
var sumMember = regexp.MustCompile(`,\n\t"sum": "([0-9a-f]{64})"\n}\n$`)

// MarshalSummed returns v, which must be an object, as JSON with a checksum of all that
// is before it as its last member, "sum". Readers that know nothing of it see one more
// member.
func MarshalSummed(v any) ([]byte, error) {
	text, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return nil, err
	}
	text, ok := bytes.CutSuffix(text, []byte("\n}"))
	if !ok {
		return nil, fmt.Errorf("%T has no members: nothing to add a checksum to", v)
	}
	sum := sha256.Sum256(text)
	return fmt.Appendf(text, ",\n\t\"sum\": \"%x\"\n}\n", sum), nil
}

// UnmarshalSummed reads what MarshalSummed made into v, which may be modified if there
// is an error: ErrNoSeal if text has no checksum, ErrChanged if it is not that of the
// text.
func UnmarshalSummed(text []byte, v any) error {
	at := sumMember.FindSubmatchIndex(text)
	if at == nil {
		return ErrNoSeal
	}
	if sum := sha256.Sum256(text[:at[0]]); hex.EncodeToString(sum[:]) != string(text[at[2]:at[3]]) {
		return ErrChanged
	}
	return json.Unmarshal(append(text[:at[0]:at[0]], "\n}"...), v) // v may be a map
}
