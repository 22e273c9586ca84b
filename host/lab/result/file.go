package result

import (
	"encoding/json"
	"errors"
	"fmt"

	"labctl/host/bounded"
	"labctl/host/outcome"
	"labctl/host/strictjson"
)

// File is the result's name in a run record.
const File = "lab.json"

// format bounds lab.json. What programs report has all its digits: see Plain.
var format = strictjson.Format{Schema: Schema, Max: 256 << 20, Numbers: true}

// Encode returns the bytes of lab.json.
func Encode(r *Result) ([]byte, error) {
	r.Schema = Schema
	b, err := json.MarshalIndent(r, "", " ")
	return append(b, '\n'), err
}

// Read reads lab.json from a path.
func Read(path string) (_ *Result, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	b, err := bounded.ReadFile(path, format.Max)
	if err != nil {
		return nil, fmt.Errorf("read a lab's result: %w", err)
	}
	r, err := Decode(b)
	if err != nil {
		return nil, fmt.Errorf("read a lab's result: %s: %w", path, err)
	}
	return r, nil
}

// Decode reads lab.json strictly: another schema, an unknown field or bytes
// after the document are errors.
func Decode(b []byte) (*Result, error) {
	r := new(Result)
	if err := format.Decode(b, r); err != nil {
		return nil, err
	}
	ids := map[string]bool{}
	for _, s := range r.Steps {
		if s == nil || s.ID == "" || ids[s.ID] {
			return nil, errors.New("a step without an id, or with another one's")
		}
		ids[s.ID] = true
		for k, v := range s.Data {
			s.Data[k] = Plain(v)
		}
	}
	return r, nil
}

// Plain turns json.Number into int64 where it is whole and fits, else float64,
// all the way down.
func Plain(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	case []any:
		for i := range v {
			v[i] = Plain(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = Plain(v[k])
		}
	}
	return v
}
