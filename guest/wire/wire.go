// Package wire is the protocol between the host and the agent in the guest,
// and the shape of what travels in it. Both sides import it, so it imports the
// standard library alone.
//
// The link is any ordered stream of bytes: a virtio-serial port, a second UART,
// or the only UART, where the kernel may write console text between two frames.
// A frame is therefore found by its magic, bounded by its length and believed
// only when its checksum holds; bytes that belong to no frame are console text.
//
//	offset size
//	0      4    magic: 1e 'l' 'c' 1f
//	4      1    Kind
//	5      1    Stream
//	6      2    sequence number of the frame in its direction, little endian, wrapping
//	8      4    Chan, little endian: the request that the frame belongs to
//	12     4    length of the payload, little endian, at most MaxPayload
//	16     n    payload
//	16+n   4    CRC-32C of bytes 4 to 16+n, little endian
//
// The sequence number shows a frame that was lost to damage (Reader.Lost). A
// receiver takes whatever number comes first, and 0 at any time: after a
// snapshot the host is new, the guest is not.
//
// A session starts with the guest's Hello. After that the host sends Requests,
// each with a fresh Chan; the guest may answer each with any number of Data
// frames and ends it with exactly one Result. A Result is the final record: a
// link that closes without it has failed, whatever the data said.
//
// Data frames are paced by credit in both directions: a sender starts with
// Window bytes a stream and may send only what the receiver has granted, so a
// slow reader of one stream never holds up another stream or a Control frame.
// Each side must go on reading while it writes, credit included: two sides that
// both write first into a full link wait for each other for ever.
package wire

import "encoding/json"

// Version is sent in Hello. Host and guest are built from one tree, so a
// difference means a stale guest binary, and the host refuses it.
const Version = 3

// MaxPayload bounds one frame's payload in bytes. virtio-serial moves 32 KiB
// writes about three times as fast as 4 KiB ones; more brings nothing.
const MaxPayload = 32 << 10

// Window is the credit in bytes that each direction of a stream starts with. On
// a busy machine a grant takes tens of milliseconds to come back from an
// emulated guest; 1 MiB was half as fast again as 256 KiB there.
const Window = 32 * MaxPayload

// Kind says what a frame carries.
type Kind uint8

const (
	KindHello   Kind = 1 + iota // guest to host: JSON Hello
	KindRequest                 // host to guest: JSON Request
	KindResult                  // guest to host: JSON Result, ends its Chan
	KindData                    // both: bytes of a Stream; empty means end of file
	KindCredit                  // both: 4 bytes, little endian: more bytes granted on a Stream
	KindControl                 // host to guest: JSON Control for a running request
)

// Stream names one flow of bytes within a Chan.
type Stream uint8

const (
	Stdin  Stream = iota // host to guest
	Stdout               // guest to host
	Stderr               // guest to host
	Extra                // guest to host: captures, sleepers
)

// Frame is one unit on the link.
type Frame struct {
	Kind    Kind
	Stream  Stream
	Chan    uint32
	Payload []byte // at most MaxPayload
}

// Op is what a Request asks for.
type Op string

const (
	OpExec     Op = "exec"      // run a program: ExecParams → ExecResult
	OpCapture  Op = "capture"   // ship ring-buffer pages until Control.Stop: CaptureParams; chunks on Extra → CaptureStopped
	OpSleepers Op = "sleepers"  // sleeping tasks with their stacks: SleepersParams; JSON lines of Sleeper on Extra → Slept
	OpReadFile Op = "read-file" // FileParams; bytes on Stdout → no value
	OpStat     Op = "stat"      // guest state: no parameters → Stat
	OpUnpack   Op = "unpack"    // tar archive on Stdin or in the window → files: UnpackParams → Unpacked
	OpRemove   Op = "remove"    // a workspace: RemoveParams → no value
	OpPack     Op = "pack"      // files → tar archive on Stdout: PackParams → Packed
	OpResume   Op = "resume"    // after a restore: ResumeParams → Hello, with a new HelloSec
)

// Request opens a Chan.
type Request struct {
	Op     Op              `json:"op"`
	Params json.RawMessage `json:"params,omitempty"` // the parameters of Op
}

// Result closes a Chan. Err is empty on success; a failed request still may
// carry a Value with what was done.
type Result struct {
	Err   string          `json:"err,omitempty"`
	Value json.RawMessage `json:"value,omitempty"` // the result of Op
}

// Control acts on the running request of its Chan.
type Control struct {
	Signal int `json:"signal,omitempty"` // deliver to the program's process group
	Rows   int `json:"rows,omitempty"`   // new terminal size, with Cols
	Cols   int `json:"cols,omitempty"`
	// Stop ends a capture.
	Stop bool `json:"stop,omitempty"`
}

// Hello is the guest's first frame.
type Hello struct {
	Version   int      `json:"version"`
	Arch      string   `json:"arch"`             // GOARCH of the agent
	Release   string   `json:"release"`          // uname -r
	Machine   string   `json:"machine"`          // uname -m
	CPUs      int      `json:"cpus"`             // online
	MemoryKB  int64    `json:"memory_kb"`        // MemTotal
	Transport string   `json:"transport"`        // "virtio-serial", "uart"
	InitSec   float64  `json:"init_sec"`         // CLOCK_BOOTTIME when PID 1 started, seconds
	HelloSec  float64  `json:"hello_sec"`        // CLOCK_BOOTTIME when this was sent, seconds
	Window    int64    `json:"window,omitempty"` // bytes of the host's memory that the guest can read
	Tracefs   string   `json:"tracefs"`          // root of tracefs; of old kernels a directory of debugfs
	Notes     []string `json:"notes,omitempty"`  // what init could not do: a mount, a module
}

// ExecParams starts a program in the guest.
type ExecParams struct {
	Argv []string `json:"argv"`          // Argv[0] is looked up in the guest's PATH
	Env  []string `json:"env,omitempty"` // added to the agent's environment
	Dir  string   `json:"dir,omitempty"`
	TTY  bool     `json:"tty,omitempty"` // a pseudo-terminal; output all on Stdout
	Rows int      `json:"rows,omitempty"`
	Cols int      `json:"cols,omitempty"`
	// Stdin says that the host will send the program's input; without it the
	// program reads /dev/null, or a terminal at which nobody types.
	Stdin bool `json:"stdin,omitempty"`
	// Instance names a capture that is under way. With CaptureParams.PIDOnly the
	// program is in it from before its first instruction.
	Instance string `json:"instance,omitempty"`
	// Mark is left in that capture just before the program starts, as an event
	// "ftrace/print": one line, at most MaxMark bytes. By it programs of one
	// capture are told apart.
	Mark string `json:"mark,omitempty"`
	// Sandbox has the program run where nothing of labctl's can be reached.
	Sandbox *Sandbox `json:"sandbox,omitempty"`
	// Watch has the agent look, with Mark, for signs that the program has bent the
	// capture: see Watched.
	Watch bool `json:"watch,omitempty"`
}

// MaxMark bounds ExecParams.Mark, in bytes.
const MaxMark = 200

// ExecResult is how the program ended. Exactly one of Exited and Signaled holds,
// or, beside an error, Errno.
type ExecResult struct {
	PID      int  `json:"pid"`
	Exited   bool `json:"exited"`
	Code     int  `json:"code"` // exit status when Exited
	Signaled bool `json:"signaled"`
	Signal   int  `json:"signal"` // when Signaled
	Core     bool `json:"core,omitempty"`
	Errno    int  `json:"errno,omitempty"` // why it could not be started: ENOENT for no such program
	// Tainted is /proc/sys/kernel/tainted after its end, 0 if that cannot be read.
	Tainted uint64 `json:"tainted,omitempty"`
	// Watched is what ExecParams.Watch asks for.
	Watched *Watched `json:"watched,omitempty"`
}

// FileParams names a regular file of the guest and the most bytes that may be
// sent of it. A longer file is an error, after Max bytes.
type FileParams struct {
	Path string `json:"path"`
	Max  int64  `json:"max"`
}

// Stat is the guest's state on request.
type Stat struct {
	BootSec float64 `json:"boot_sec"` // CLOCK_BOOTTIME, seconds
	Load    string  `json:"load"`     // /proc/loadavg
}

// UnpackParams says where a tar archive's entries go. Entries are relative to
// Dir and may not leave it; directories on the way are made.
type UnpackParams struct {
	Dir string `json:"dir"`
	// Window says how many of the archive's first bytes are in the window
	// (Hello.Window); Rest that others follow on Stdin.
	Window int64 `json:"window,omitempty"`
	Rest   bool  `json:"rest,omitempty"`
}

// Unpacked is what OpUnpack did.
type Unpacked struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
	// Missing are keys of KeepPrefix that the guest does not have: those entries are
	// not there. At most MaxMissing.
	Missing []string `json:"missing,omitempty"`
}

// An archive's regular file with the PAX record KeepRecord is kept by the record's value,
// "SHA256-MODE", both as the host has them, until others take its room. A hard link
// to KeepPrefix and that value stands for the file in a later archive.
const (
	KeepRecord = "LABCTL.keep"
	KeepPrefix = "kept:"
	MaxMissing = 64
)

// WorkspaceDir has a directory for each command of the host that uses a machine that is
// another's.
const WorkspaceDir = "/labctl/in"

// RemoveParams names a directory directly below WorkspaceDir. It need not be there.
type RemoveParams struct {
	Dir string `json:"dir"`
}

// PackParams names files and directories of the guest, relative to Dir. What is not
// there is left out and counted; directories are taken whole.
type PackParams struct {
	Dir   string   `json:"dir"`
	Paths []string `json:"paths"`
	Max   int64    `json:"max"` // bytes of files at most; more is an error
}

// Packed is what OpPack did.
type Packed struct {
	Files   int   `json:"files"`
	Bytes   int64 `json:"bytes"`
	Missing int   `json:"missing"` // of Paths
	// Left counts what is neither a file nor a directory, LeftOut names the first few.
	Left    int      `json:"left,omitempty"`
	LeftOut []string `json:"left_out,omitempty"`
}

// ResumeParams is what a restored guest cannot know.
type ResumeParams struct {
	UnixNano int64  `json:"unix_nano"` // wall clock
	Entropy  []byte `json:"entropy"`   // fresh random bytes of the host's, at least 32
}
