package debian

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// parseControl parses stanzas of "Field: value" lines (deb-control(5), deb822(5)).
// A line that starts with white space continues the value before it; a lone "."
// on it means an empty line. Field names keep their case; comments are dropped.
func parseControl(text string) []map[string]string {
	var out []map[string]string
	var cur map[string]string
	field := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			cur, field = nil, ""
		case line[0] == ' ' || line[0] == '\t':
			if field != "" {
				if line = strings.TrimSpace(line); line == "." {
					line = ""
				}
				cur[field] += "\n" + line
			}
		default:
			name, val, ok := strings.Cut(line, ":")
			if !ok {
				continue
			}
			if cur == nil {
				cur = map[string]string{}
				out = append(out, cur)
			}
			field = name
			cur[field] = strings.TrimSpace(val)
		}
	}
	return out
}

// exactDep is a dependency at one exact version; version is "" for any.
type exactDep struct{ name, version string }

func (d exactDep) spec() string {
	if d.version == "" {
		return d.name
	}
	return d.name + "=" + d.version
}

// exactKernelDeps returns the linux-* packages that a stanza depends on at an
// exact version. The other dependencies (kmod, an initramfs generator) are not
// needed in a guest.
func exactKernelDeps(stanza map[string]string) []exactDep {
	var out []exactDep
	for _, dep := range strings.Split(stanza["Depends"], ",") {
		name, rest, ok := strings.Cut(strings.TrimSpace(dep), " (= ")
		version, closed := strings.CutSuffix(rest, ")")
		if ok && closed && strings.HasPrefix(name, "linux-") && validName(name) && validVersion(version) {
			out = append(out, exactDep{name, version})
		}
	}
	return out
}

// validName and validVersion restrict strings that become arguments or file names
// to the characters allowed by Debian policy 5.6.1 and 5.6.12.
func validName(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789+-.") == "" && s[0] != '-' && s[0] != '.'
}

func validVersion(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.~:") == "" && s[0] >= '0' && s[0] <= '9'
}

func packageOf(stanza map[string]string) (Package, error) {
	p := Package{Name: stanza["Package"], Version: stanza["Version"], SHA256: stanza["SHA256"]}
	var err error
	if p.Size, err = strconv.ParseInt(stanza["Size"], 10, 64); err != nil || p.Size <= 0 || p.Size > maxDeb {
		return p, fmt.Errorf("package %s: invalid size %q in the index", p.Name, stanza["Size"])
	}
	if b, err := hex.DecodeString(p.SHA256); err != nil || len(b) != 32 {
		return p, fmt.Errorf("package %s: invalid SHA256 %q in the index", p.Name, p.SHA256)
	}
	if !validName(p.Name) || !validVersion(p.Version) {
		return p, fmt.Errorf("package %q, version %q: invalid name or version in the index", p.Name, p.Version)
	}
	return p, nil
}
