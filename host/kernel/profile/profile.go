// Package profile describes what the labs use of a kernel, read from its image:
// struct layouts, tracepoints, system calls and the functions that work on tasks.
// The profile is stored in run records, so that kernels can be compared later and
// elsewhere, without their images.
package profile

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"labctl/host/bounded"
	"labctl/host/outcome"
	"labctl/host/strictjson"
	"labctl/host/text"
)

// Schema is the value of Profile.Schema that this package writes and reads.
const Schema = "labctl/kernel/v1"

// Profile is kernel.json of a run record. Lists are sorted by name, except
// members, which are in declaration order.
type Profile struct {
	Schema  string `json:"schema"`
	Release string `json:"release"` // uname -r
	Arch    string `json:"arch"`    // GOARCH
	SHA256  string `json:"sha256"`  // of the image, in hex
	// BTF reports whether the image has BTF. Without BTF there are no Structs, and
	// Functions has only the families of guest/ksym, without prototypes.
	BTF bool `json:"btf"`
	// Symbols reports whether the image has a readable kallsyms table. Without it
	// there are no Tracepoints and no Syscalls.
	Symbols bool `json:"symbols"`
	// Gaps lists what could not be read, and why.
	Gaps        []string   `json:"gaps,omitempty"`
	Structs     []Struct   `json:"structs,omitempty"`
	Tracepoints []string   `json:"tracepoints,omitempty"` // in the image; modules may have more
	Syscalls    []string   `json:"syscalls,omitempty"`    // those implemented for the kernel's architecture
	Functions   []Function `json:"functions,omitempty"`
	// Known counts the image's functions: older toolchains left many of them out
	// of BTF.
	Known struct {
		Symbols int `json:"symbols"` // functions in the symbol table
		Types   int `json:"types"`   // functions whose prototype is in BTF
	} `json:"known_functions"`
}

// Struct is a struct's layout, in bytes.
type Struct struct {
	Name    string   `json:"name"`
	Size    int      `json:"size"`
	Members []Member `json:"members"`
}

// Member is a member's type and offset. Members of anonymous structs and unions
// are listed under their own names, with offsets in the enclosing struct.
type Member struct {
	Name   string `json:"name"`
	Type   string `json:"type"` // in C
	Offset int    `json:"offset"`
	Size   int    `json:"size"`
	// Bits and Shift are set for a bit field: the value is Bits wide and starts
	// Shift bits above the lowest bit of the Size bytes at Offset.
	Bits  int `json:"bits,omitempty"`
	Shift int `json:"shift,omitempty"`
}

// Function is a function that accepts or returns a task or the arguments of task
// creation, or that belongs to a family of guest/ksym.
type Function struct {
	Name   string `json:"name"`             // without compiler suffixes
	Proto  string `json:"proto,omitempty"`  // in C: "pid_t kernel_clone(struct kernel_clone_args *)"
	Family string `json:"family,omitempty"` // of guest/ksym
}

// Limits on a valid profile.
const (
	maxStructs = 64
	maxMembers = 2048 // of a struct
	maxNames   = 8192 // tracepoints, system calls, functions
	maxGaps    = 16
	maxName    = 512 // bytes: KSYM_NAME_LEN
	maxText    = 4096
	maxPlace   = 1 << 24 // bytes
)

var format = strictjson.Format{Schema: Schema, Max: 4 << 20}

// Encode encodes a profile as kernel.json.
func Encode(p *Profile) ([]byte, error) {
	p.Schema = Schema
	var b bytes.Buffer
	e := json.NewEncoder(&b) // not indented: indentation would be a third of it
	e.SetEscapeHTML(false)
	err := e.Encode(p)
	return b.Bytes(), err
}

// Read reads kernel.json from a path.
func Read(path string) (_ *Profile, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	b, err := bounded.ReadFile(path, format.Max)
	if err != nil {
		return nil, fmt.Errorf("read a kernel's profile: %w", err)
	}
	p, err := Decode(b)
	if err != nil {
		return nil, fmt.Errorf("read a kernel's profile: %s: %w", path, err)
	}
	return p, nil
}

// Decode parses kernel.json strictly: another schema, an unknown field, an invalid
// name, an unsorted list and trailing data are errors.
func Decode(b []byte) (*Profile, error) {
	p := new(Profile)
	if err := format.Decode(b, p); err != nil {
		return nil, err
	}
	return p, p.check()
}

func (p *Profile) check() error {
	if p.Known.Symbols < 0 || p.Known.Types < 0 {
		return errors.New("known_functions: negative count")
	}
	if sum, err := hex.DecodeString(p.SHA256); err != nil || len(sum) != 32 {
		return fmt.Errorf("sha256 is %.80q; want 64 hexadecimal digits", p.SHA256)
	}
	if !isName(p.Arch) {
		return fmt.Errorf("arch is %.40q; want a GOARCH", p.Arch)
	}
	if !isText(p.Release) || len(p.Release) > maxName || strings.Contains(p.Release, " ") {
		return fmt.Errorf("release is %.40q; want what uname -r prints", p.Release)
	}
	if len(p.Gaps) > maxGaps {
		return fmt.Errorf("gaps: %d, more than %d", len(p.Gaps), maxGaps)
	}
	for _, g := range p.Gaps {
		if !isText(g) {
			return fmt.Errorf("gaps: %.40q is not a line of text", g)
		}
	}
	if err := checkNames("tracepoints", maxNames, p.Tracepoints); err != nil {
		return err
	}
	if err := checkNames("syscalls", maxNames, p.Syscalls); err != nil {
		return err
	}
	names := make([]string, len(p.Functions))
	for i, f := range p.Functions {
		names[i] = f.Name
		if f.Proto != "" && !isText(f.Proto) || f.Family != "" && !isName(f.Family) || f.Proto == "" && f.Family == "" {
			return fmt.Errorf("functions: %.60q: want a prototype or a family, as text", f.Name)
		}
	}
	if err := checkNames("functions", maxNames, names); err != nil {
		return err
	}
	names = names[:0]
	for _, s := range p.Structs {
		names = append(names, s.Name)
		if err := s.check(); err != nil {
			return fmt.Errorf("structs: %.60q: %w", s.Name, err)
		}
	}
	return checkNames("structs", maxStructs, names)
}

func (s *Struct) check() error {
	if len(s.Members) > maxMembers {
		return fmt.Errorf("%d members, more than %d", len(s.Members), maxMembers)
	}
	if s.Size < 0 || s.Size > maxPlace {
		return fmt.Errorf("invalid size %d", s.Size)
	}
	seen := map[string]bool{}
	for _, m := range s.Members {
		if !isName(m.Name) || !isText(m.Type) || seen[m.Name] {
			return fmt.Errorf("member %.60q: duplicate, or without name or type", m.Name)
		}
		seen[m.Name] = true
		for _, n := range []int{m.Offset, m.Size, m.Bits, m.Shift} {
			if n < 0 || n > maxPlace {
				return fmt.Errorf("member %s: invalid offset or size %d", m.Name, n)
			}
		}
	}
	return nil
}

// checkNames checks that names are valid kernel symbols, sorted, without
// duplicates.
func checkNames(what string, most int, names []string) error {
	if len(names) > most {
		return fmt.Errorf("%s: %d, more than %d", what, len(names), most)
	}
	for i, n := range names {
		if !isName(n) {
			return fmt.Errorf("%s: %.60q is not a valid name", what, n)
		}
		if i > 0 && names[i-1] >= n {
			return fmt.Errorf("%s: %s after %s: not sorted, or duplicate", what, n, names[i-1])
		}
	}
	return nil
}

func isName(s string) bool {
	return s != "" && len(s) <= maxName && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '.' || r == '$')
	})
}

func isText(s string) bool {
	return s != "" && len(s) <= maxText && text.Clean(s) == s && !strings.ContainsAny(s, "\n\t")
}

// Struct returns the struct with a name, or nil.
func (p *Profile) Struct(name string) *Struct {
	i, ok := slices.BinarySearchFunc(p.Structs, name, func(s Struct, name string) int { return strings.Compare(s.Name, name) })
	if !ok {
		return nil
	}
	return &p.Structs[i]
}
