// Package strictjson reads JSON that may come from anywhere: records of other
// versions, files that a person edited, what a guest printed. A field that the
// reader does not know is an error, for a typing error would else be a default.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"labctl/host/bounded"
	"labctl/host/text"
)

// Format is what a document must be.
type Format struct {
	// Schema is the value of its member "schema"; a document has none where it is
	// empty.
	Schema string
	// Older makes documents of older schemas one of Schema, by their schema. Numbers
	// come as json.Number; the member "schema" is set by Decode.
	Older map[string]func(document map[string]any)
	Max   int64 // bytes
	// Numbers reads numbers of no type of their own, as in a map[string]any, as
	// json.Number, which has all digits.
	Numbers bool
}

// Decode reads one document into v. More than Max bytes, another schema, a field that
// v does not have and anything after the document are errors: one line each, fit for
// a terminal, that begins with the document's line where it is known.
func (f Format) Decode(b []byte, v any) error {
	if int64(len(b)) > f.Max {
		return &bounded.TooLargeError{Max: f.Max}
	}
	// The whole is read once before, for its syntax and its schema: a document of a
	// newer version should say so, not name the first field that is new.
	if f.Schema == "" {
		var syntax json.RawMessage
		if err := json.Unmarshal(b, &syntax); err != nil {
			return at(b, err)
		}
	} else {
		var head struct{ Schema string }
		if err := json.Unmarshal(b, &head); err != nil {
			return at(b, err)
		}
		if upgrade, ok := f.Older[head.Schema]; ok {
			var err error
			if b, err = f.upgrade(b, upgrade); err != nil {
				return err
			}
		} else if head.Schema != f.Schema {
			known := append(slices.Sorted(maps.Keys(f.Older)), f.Schema)
			for i := range known {
				known[i] = strconv.Quote(known[i])
			}
			return fmt.Errorf("schema is %.40q, this labctl reads %s", head.Schema, strings.Join(known, " and "))
		}
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if f.Numbers {
		d.UseNumber()
	}
	if err := d.Decode(v); err != nil {
		return at(b, err)
	}
	return nil
}

// upgrade gives a document of Schema, all on one line.
func (f Format) upgrade(b []byte, change func(map[string]any)) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var document map[string]any
	if err := d.Decode(&document); err != nil {
		return nil, at(b, err)
	}
	change(document)
	document["schema"] = f.Schema
	return json.Marshal(document)
}

// at adds the line to a JSON error that knows its offset, which is behind the
// byte that is wrong.
func at(b []byte, err error) error {
	var syn *json.SyntaxError
	var typ *json.UnmarshalTypeError
	off := int64(-1)
	switch {
	case errors.As(err, &syn):
		off = syn.Offset
	case errors.As(err, &typ):
		off = typ.Offset
	}
	msg := text.Line(err.Error(), 300)
	if off < 0 || off > int64(len(b)) {
		return errors.New(msg)
	}
	return fmt.Errorf("line %d: %s", 1+bytes.Count(b[:max(0, off-1)], []byte("\n")), msg)
}
