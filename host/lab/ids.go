package lab

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"labctl/host/outcome"
)

// IDs lists the labs below a directory by the names of their directories, in the order of
// Load, without reading any.
func IDs(root fs.FS) ([]string, error) {
	names, err := fs.Glob(root, "*/"+Config)
	if err != nil {
		return nil, outcome.Default(outcome.BadInput, fmt.Errorf("list labs: %w", err))
	}
	var ids []string
	for _, name := range names {
		if id, _, _ := strings.Cut(name, "-"); labID.MatchString(id) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, compareIDs)
	return slices.Compact(ids), nil
}
