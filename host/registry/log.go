package registry

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"labctl/host/scratch"
)

// keepLogs is how long the log of an owner in the background stays when the owner has
// been killed.
const keepLogs = 7 * 24 * time.Hour

// CreateLog creates the log of an owner in the background, in place of an earlier one.
func CreateLog(name string) (*os.File, error) {
	d, err := openDir()
	if err != nil {
		return nil, err
	}
	defer d.Close()
	path := d.file(name, logSuffix)
	os.Remove(path) // its owner may still write to it
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
}

// DropLog removes the log of an owner that has ended well.
func DropLog(name string) {
	d, err := openDir()
	if err != nil {
		return
	}
	defer d.Close()
	os.Remove(d.file(name, logSuffix))
}

// sweepLogs removes old logs of machines that do not run.
func (d *directory) sweepLogs(running []string) {
	logs, _ := filepath.Glob(filepath.Join(scratch.EscapeGlob(d.path), "*"+logSuffix))
	for _, path := range logs {
		fi, err := os.Stat(path)
		if err != nil || time.Since(fi.ModTime()) < keepLogs || slices.Contains(running, strings.TrimSuffix(filepath.Base(path), logSuffix)) {
			continue
		}
		os.Remove(path)
	}
}
