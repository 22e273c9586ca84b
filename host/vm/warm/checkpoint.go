package warm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"labctl/host/bounded"
	"labctl/host/cachedir"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/scratch"
)

// Checkpoints are machines that a user has saved while they ran. A checkpoint is, by its
// name:
//
//	NAME.ram    the memory of the template that the machine was started from: a link
//	NAME.state  the pages of memory that differ from that, and the state of the devices
//	NAME.json   its description (type CheckpointInfo), written last
type Checkpoints struct{ dir string }

// CheckpointLimit is the disk space that checkpoints may use, in bytes, without the
// memory that they share with templates.
const CheckpointLimit = 4 << 30

// OpenCheckpoints opens the user's checkpoints.
func OpenCheckpoints() (*Checkpoints, error) {
	base, err := cachedir.Dir()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(base, "checkpoints")
	if err := cachedir.Make(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the checkpoints: %w", err)
	}
	return &Checkpoints{dir}, nil
}

// CheckpointInfo describes a checkpoint.
type CheckpointInfo struct {
	Spec        json.RawMessage `json:"spec"`     // of the machine, for who has saved it
	Template    string          `json:"template"` // key
	Target      string          `json:"target"`
	Kernel      string          `json:"kernel"` // release
	CPUs        int             `json:"cpus"`
	MemoryMB    int             `json:"memory_mb"`
	BootSeconds float64         `json:"boot_seconds"` // of the template
	Made        time.Time       `json:"made"`

	Files map[string]stored `json:"files"`
}

// Checkpoint is a machine to start from.
type Checkpoint struct {
	CheckpointInfo
	Name string `json:"name"`
	Disk int64  `json:"disk"` // of its state, in bytes
	dir  *Checkpoints
}

// RAM returns the path of the template's memory.
func (c *Checkpoint) RAM() string { return c.dir.file(c.Name, "ram") }

// State returns the path of what differs from it.
func (c *Checkpoint) State() string { return c.dir.file(c.Name, "state") }

var checkpointKinds = []string{"ram", "state"}

func (c *Checkpoints) file(name, kind string) string { return filepath.Join(c.dir, name+"."+kind) }

// Save stores a machine under a name that the caller has checked. ram is the memory of
// its template, state writes what differs. A checkpoint of the name is replaced.
func (c *Checkpoints) Save(ctx context.Context, name string, info CheckpointInfo, ram *os.File, state func(*os.File) error) error {
	lock, err := scratch.TakeLock(ctx, c.file(name, "lock"))
	if err != nil {
		return fmt.Errorf("wait for the checkpoint: %w", err)
	}
	defer lock.Release()
	f, err := nameless(c.dir)
	if err != nil {
		return host(fmt.Errorf("save a checkpoint: %w", err))
	}
	defer f.Close()
	if err := state(f); err != nil {
		return err
	}
	if err := c.room(f, name); err != nil {
		return err
	}
	if err := c.remove(name); err != nil {
		return host(err)
	}
	if err := c.store(name, info, ram, f); err != nil {
		c.remove(name)
		return host(fmt.Errorf("store the checkpoint: %w", err))
	}
	return nil
}

// room reports whether a state is too large beside the other checkpoints.
func (c *Checkpoints) room(state *os.File, name string) error {
	st, err := state.Stat()
	if err != nil {
		return host(err)
	}
	sum := st.Sys().(*syscall.Stat_t).Blocks * 512
	all, err := c.List()
	if err != nil {
		return err
	}
	for _, other := range all {
		if other.Name != name {
			sum += other.Disk
		}
	}
	if sum > CheckpointLimit {
		return outcome.Hostf("checkpoints would use %d MB, and %d MB is the limit; remove some with: labctl vm rm NAME", sum>>20, int64(CheckpointLimit)>>20)
	}
	return nil
}

func (c *Checkpoints) store(name string, info CheckpointInfo, ram, state *os.File) error {
	if err := link(ram, c.file(name, "ram")); err != nil {
		return fmt.Errorf("the template's memory: %w", err)
	}
	if err := link(state, c.file(name, "state")); err != nil {
		return err
	}
	info.Made, info.Files = time.Now().UTC(), map[string]stored{}
	for kind, f := range map[string]*os.File{"ram": ram, "state": state} {
		s, err := storedAs(f)
		if err != nil {
			return err
		}
		info.Files[kind] = s
	}
	return c.writeInfo(name, info)
}

func (c *Checkpoints) writeInfo(name string, info CheckpointInfo) error {
	text, err := cachedir.MarshalSummed(info)
	if err != nil {
		return err
	}
	return scratch.Write(c.file(name, "json"), text, 0o600)
}

// Open returns a checkpoint whose files are as they were stored.
func (c *Checkpoints) Open(name string) (*Checkpoint, error) {
	p, err := c.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		all, lerr := c.List()
		if lerr != nil {
			return nil, lerr
		}
		names := make([]string, len(all))
		for i, p := range all {
			names[i] = p.Name
		}
		return nil, nearest.Unknown("checkpoint", name, names)
	}
	if err != nil {
		return nil, outcome.Default(outcome.BadInput, fmt.Errorf("checkpoint %s: %w", name, err))
	}
	moved := false
	for _, kind := range checkpointKinds {
		ok, now, err := p.Files[kind].same(c.file(name, kind))
		if err != nil {
			return nil, host(err)
		}
		if !ok {
			return nil, outcome.Inputf("checkpoint %s: its %s is not as it was stored; remove it with: labctl vm rm %s", name, kind, name)
		}
		if now != nil {
			p.Files[kind], moved = *now, true
		}
	}
	if moved {
		_ = c.writeInfo(name, p.CheckpointInfo) // else it is read again each time
	}
	return p, nil
}

func (c *Checkpoints) open(name string) (*Checkpoint, error) {
	text, err := bounded.ReadFile(c.file(name, "json"), maxInfo)
	if err != nil {
		return nil, err
	}
	p := &Checkpoint{Name: name, dir: c}
	if err := cachedir.UnmarshalSummed(text, &p.CheckpointInfo); err != nil {
		return nil, fmt.Errorf("its description: %w", err)
	}
	st, err := os.Stat(p.State())
	if err != nil {
		return nil, err
	}
	p.Disk = st.Sys().(*syscall.Stat_t).Blocks * 512
	return p, nil
}

// List returns the checkpoints by name.
func (c *Checkpoints) List() ([]*Checkpoint, error) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, host(fmt.Errorf("list checkpoints: %w", err))
	}
	all := []*Checkpoint{}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		if p, err := c.open(name); err == nil {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b *Checkpoint) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Remove removes a checkpoint, a damaged one, too. Machines that run from it are not
// affected.
func (c *Checkpoints) Remove(name string) error {
	if _, err := os.Lstat(c.file(name, "json")); err != nil {
		if _, err := c.Open(name); err != nil {
			return err
		}
	}
	return host(c.remove(name))
}

func (c *Checkpoints) remove(name string) error {
	var errs []error
	for _, kind := range append([]string{"json"}, checkpointKinds...) {
		if err := os.Remove(c.file(name, kind)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
