package slurm

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"labctl/host/matrix"
	"labctl/host/outcome"
	"labctl/host/record"
)

var labctl = flag.String("labctl", "", "the labctl that TestCluster submits with, on a Slurm of its own")

// mark is a variable by which the processes of a cluster are known, those of its jobs
// included; node is one more, of a node's.
const (
	mark = "LABCTL_TEST_CLUSTER="
	node = "LABCTL_TEST_NODE="
)

// reap is a variable of a process that outlives the test, however that ends, and then ends
// the cluster whose directory it has.
const reap = "LABCTL_TEST_REAP"

func TestMain(m *testing.M) {
	if dir := os.Getenv(reap); dir != "" {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the test's process
		end(nil, mark+dir)
		return
	}
	os.Exit(m.Run())
}

// cluster is a Slurm on loopback: munged, slurmctld and two slurmd. All that it is has
// its place in dir, and all that it started is ended with the test.
type cluster struct {
	t    testing.TB
	dir  string
	env  []string
	ends map[string]*exec.Cmd
}

// tools are the programs that it takes; Debian has the daemons where PATH may not lead.
func (c *cluster) tool(name string) string {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		if p := filepath.Join(dir, name); exec.Command(p, "--version").Path != "" {
			if fi, err := os.Stat(p); err == nil && fi.Mode()&0o111 != 0 {
				return p
			}
		}
	}
	c.t.Fatalf("%s is not there: make slurm-tools", name)
	return ""
}

func (c *cluster) start(name string, env []string, argv ...string) {
	c.t.Helper()
	out, err := os.Create(filepath.Join(c.dir, name+".out"))
	if err != nil {
		c.t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(c.tool(argv[0]), argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, out, c.dir
	cmd.Env = append(slices.Clone(c.env), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.ends[name] = cmd
}

// run runs a command with the cluster's environment, Slurm's own or labctl.
func (c *cluster) run(limit time.Duration, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = c.env
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%q: %w: %s", argv, err, said.String())
	}
	return string(out), err
}

// await polls until what is waited for is there; the test's own deadline ends it.
func (c *cluster) await(what string, there func() bool) {
	c.t.Helper()
	c.t.Logf("%s waiting for %s", time.Now().Format(time.TimeOnly), what)
	end := time.Now().Add(time.Hour)
	if t, ok := c.t.(*testing.T); ok {
		if d, ok := t.Deadline(); ok {
			end = d.Add(-time.Minute)
		}
	}
	for !there() {
		if time.Now().After(end) {
			c.t.Fatalf("no %s", what)
		}
		time.Sleep(time.Second)
	}
}

// processes are those whose environment has some variables, and of a job's the
// slurmstepd that started it, which has none.
func processes(variables ...string) (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range all {
		b, err := os.ReadFile(f)
		env := strings.Split(string(b), "\x00")
		if err != nil || slices.ContainsFunc(variables, func(v string) bool { return !slices.Contains(env, v) }) {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(f, "/")[2])
		pids = append(pids, pid)
		var name string
		var parent int
		if b, err := os.ReadFile(filepath.Join(filepath.Dir(f), "stat")); err == nil {
			if _, err := fmt.Sscanf(string(b[bytes.LastIndexByte(b, ')')+1:]), "%s %d", &name, &parent); err != nil {
				continue
			}
		}
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", parent)); err == nil && strings.HasPrefix(string(b), "slurmstepd") {
			pids = append(pids, parent)
		}
	}
	return pids
}

// end ends processes as a power cut does, those of ends too, and returns what lives on.
func end(ends map[string]*exec.Cmd, variables ...string) (left []int) {
	for range 100 {
		if left = processes(variables...); len(left) == 0 {
			return nil
		}
		for _, pid := range left {
			if pid != os.Getpid() {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone
			}
		}
		for _, cmd := range ends {
			if slices.Contains(left, cmd.Process.Pid) {
				_ = cmd.Wait()
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return left
}

func (c *cluster) kill(variables ...string) {
	if left := end(c.ends, variables...); len(left) > 0 {
		c.t.Errorf("processes of %q live on: %v", variables, left)
	}
}

// reaper starts what ends the cluster when the test is killed.
func (c *cluster) reaper() {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), reap+"="+c.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	hold, err := cmd.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		hold.Close()
		if err := cmd.Wait(); err != nil {
			c.t.Errorf("what ends a cluster that was left: %v", err)
		}
	})
}

// ports are so many that are free side by side, as far as is known.
func ports(t testing.TB, n int) int {
	t.Helper()
next:
	for first := 20000 + os.Getpid()%10000; first < 60000; first += n {
		for i := range n {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+i))
			if err != nil {
				continue next
			}
			l.Close()
		}
		return first
	}
	t.Fatal("no free ports")
	return 0
}

const conf = `ClusterName=labctl
SlurmctldHost=%[1]s(127.0.0.1)
SlurmctldPort=%[3]d
AuthType=auth/munge
AuthInfo=socket=%[2]s/munge.socket,cred_expire=10
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=%[2]s/state
SlurmdSpoolDir=%[2]s/spool.%%n
SlurmctldPidFile=%[2]s/slurmctld.pid
SlurmdPidFile=%[2]s/slurmd.%%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
SlurmdTimeout=20
KillWait=5
SchedulerParameters=sched_interval=2,bf_interval=2
NodeName=n[1-2] NodeHostname=%[1]s NodeAddr=127.0.0.1 Port=[%[4]d-%[5]d] CPUs=%[6]d State=UNKNOWN
PartitionName=labs Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
`

func newCluster(t testing.TB) *cluster {
	if os.Getuid() != 0 {
		t.Fatal("a Slurm of this kind runs as root")
	}
	c := &cluster{t: t, dir: t.TempDir(), ends: map[string]*exec.Cmd{}}
	c.env = append(os.Environ(), mark+c.dir, "SLURM_CONF="+filepath.Join(c.dir, "slurm.conf"))
	t.Cleanup(func() {
		if t.Failed() {
			for _, f := range []string{"munged.out", "slurmctld.out", "n1.out", "n2.out", "out/shard-1.log", "out/shard-2.log", "out/shard-3.log", "out/shard-4.log", "out/merge.log"} {
				if b, err := os.ReadFile(filepath.Join(c.dir, f)); err == nil {
					t.Logf("%s:\n%s", f, b[max(0, len(b)-4000):])
				}
			}
		}
		c.kill(mark + c.dir)
	})
	c.reaper()
	key := make([]byte, 1024)
	if _, err := rand.Read(key); err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	port := ports(t, 3)
	cpus, err := exec.Command("nproc").Output()
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(cpus)))
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(conf, strings.Split(host, ".")[0], c.dir, port, port+1, port+2, n)
	for name, b := range map[string][]byte{"key": key, "slurm.conf": []byte(text)} {
		if err := os.WriteFile(filepath.Join(c.dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"state", "spool.n1", "spool.n2"} {
		if err := os.Mkdir(filepath.Join(c.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(c.dir, name) }
	// --force: the folders above belong to whoever runs the test.
	c.start("munged", nil, "munged", "--foreground", "--force", "--socket="+in("munge.socket"), "--key-file="+in("key"),
		"--pid-file="+in("munge.pid"), "--log-file="+in("munge.log"), "--seed-file="+in("munge.seed"))
	c.await("munged", func() bool { _, err := os.Stat(in("munge.socket")); return err == nil })
	c.start("slurmctld", nil, "slurmctld", "-D")
	for _, name := range []string{"n1", "n2"} {
		c.start(name, []string{node + c.dir + name}, "slurmd", "-D", "-N", name)
	}
	c.await("two idle nodes", func() bool {
		out, err := c.run(2*time.Minute, "sinfo", "-h", "-N", "-t", "idle", "-o", "%N")
		return err == nil && len(strings.Fields(out)) == 2
	})
	return c
}

// TestCluster runs a matrix of 16 cells in four tasks, on two nodes. In the middle of
// a task its node dies: Slurm starts the task again on the other, the cells that were
// done stay so, and the whole is whole.
func TestCluster(t *testing.T) {
	if *labctl == "" {
		t.Skip("it needs Slurm, munge and -labctl: make test-slurm")
	}
	c := newCluster(t)
	c.nodeDies(filepath.Join(c.dir, "out"))
	c.cancelled(filepath.Join(c.dir, "out2"))
}

// BenchmarkCluster compares a matrix of all labs, in four tasks on two nodes, with the same
// on the host alone, two cells at a time as well. The bound is 1.15.
func BenchmarkCluster(b *testing.B) {
	if *labctl == "" {
		b.Skip("it needs Slurm, munge and -labctl: make bench-slurm")
	}
	c := newCluster(b)
	args := []string{"--labs", "*", "--out"}
	alone := func(out string) {
		if _, err := c.run(time.Hour, append([]string{*labctl, "matrix", "run", "-q", "--kernels", "6.12", "--arch", "amd64",
			"--jobs", "2", "--retry", "3", "--patience", "4"}, append(args, out)...)...); err != nil {
			b.Fatal(err)
		}
	}
	alone(filepath.Join(c.dir, "first")) // boots, builds and saves what is used again
	var ratios []float64
	for b.Loop() {
		i := len(ratios)
		start := time.Now()
		alone(filepath.Join(c.dir, fmt.Sprint("alone-", i)))
		plain := time.Since(start)
		start = time.Now()
		jobs := c.submit(4, append(args, filepath.Join(c.dir, fmt.Sprint("slurm-", i)))...)
		c.ended()
		took := time.Since(start)
		if m, err := matrix.Read(jobs.Merged); err != nil {
			b.Fatal(err)
		} else if w := m.Worst(); w != outcome.OK {
			b.Fatalf("the worst cell is %v", w)
		}
		b.Logf("alone %.1f s, by Slurm %.1f s", plain.Seconds(), took.Seconds())
		ratios = append(ratios, took.Seconds()/plain.Seconds())
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "times-alone")
}

// submit submits a matrix of so many tasks.
func (c *cluster) submit(tasks int, args ...string) (jobs Jobs) {
	c.t.Helper()
	text, err := c.run(2*time.Minute, append([]string{*labctl, "matrix", "submit", "--slurm", "--json", "--shards", fmt.Sprint(tasks), "--kernels", "6.12", "--arch", "amd64",
		"--jobs", "1", "--retry", "3", "--patience", "4", "--sbatch=--exclusive"}, args...)...)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(text), &jobs); err != nil || jobs.Tasks != tasks {
		c.t.Fatalf("submitted: %q, %v", text, err)
	}
	return jobs
}

// ended waits until no job is left.
func (c *cluster) ended() {
	c.t.Helper()
	c.await("the end of all jobs", func() bool {
		left, err := c.run(2*time.Minute, "squeue", "-h", "-o", "%i %T %r")
		return err == nil && strings.TrimSpace(left) == ""
	})
}

// cancelled: what scancel has ended says how far it came, the merge says what is missing,
// and a submission that resumes does that alone.
func (c *cluster) cancelled(out string) {
	t := c.t
	args := []string{"--labs", "P1,P2,P3,P6", "--out", out}
	jobs := c.submit(2, args...)
	done := func() []string {
		names, _ := filepath.Glob(filepath.Join(out, "shard-*", matrix.CellDir, "*.json"))
		return names
	}
	c.await("a cell that is done", func() bool { return len(done()) > 0 })
	if _, err := c.run(2*time.Minute, "scancel", jobs.Array); err != nil {
		t.Fatal(err)
	}
	c.ended()
	before := results(t, done())
	if len(before) == 4 {
		t.Fatal("all cells were done before scancel")
	}
	log, err := os.ReadFile(filepath.Join(out, "merge.log"))
	if err != nil || !strings.HasPrefix(string(log), "labctl: merge: ") && !strings.HasPrefix(string(log), "labctl: merge "+out) {
		t.Errorf("the merge of what was cancelled: %q, %v", log, err)
	}
	if _, err := os.Stat(jobs.Merged); err == nil {
		t.Errorf("%s is there, of %d cells", jobs.Merged, len(before))
	}
	jobs = c.submit(2, append(args, "--resume")...)
	c.ended()
	all, err := matrix.Read(jobs.Merged)
	if err != nil {
		t.Fatal(err)
	}
	if by, _ := all.Count(); by[outcome.OK] != 4 {
		t.Errorf("resumed: %v, want 4 ok", by)
	}
	unchanged(t, before)
}

// results are the results of cells, by their files.
func results(t testing.TB, names []string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = b
	}
	return all
}

func unchanged(t testing.TB, before map[string][]byte) {
	t.Helper()
	for name, b := range before {
		if after, err := os.ReadFile(name); err != nil || !bytes.Equal(b, after) {
			t.Errorf("%s was done before and was run again: %v", filepath.Base(name), err)
		}
	}
}

// nodeDies: TestCluster's first half.
func (c *cluster) nodeDies(out string) {
	t := c.t
	jobs := c.submit(4, "--labs", "P*,C1,C2,C3,C7,K1", "--out", out)
	shard := func(i int) string { return filepath.Join(out, fmt.Sprint("shard-", i)) }
	cells := func(i int) []string {
		names, _ := filepath.Glob(filepath.Join(shard(i), matrix.CellDir, "*.json"))
		return names
	}
	// A task on n1 that has done a cell and not all of them.
	task := 0
	c.await("a task on n1 in its middle", func() bool {
		on, err := c.run(2*time.Minute, "squeue", "-h", "-t", "R", "-w", "n1", "-j", jobs.Array, "-o", "%K")
		if err != nil {
			return false
		}
		task, _ = strconv.Atoi(strings.TrimSpace(on))
		return task > 0 && len(cells(task)) > 0 && len(cells(task)) < 3
	})
	c.kill(node + c.dir + "n1")              // slurmd
	c.kill(mark+c.dir, "SLURMD_NODENAME=n1") // slurmstepd and what runs under it
	before := results(t, cells(task))
	if _, err := os.Stat(filepath.Join(shard(task), matrix.File)); err == nil {
		t.Fatalf("task %d was over before its node died", task)
	}
	t.Logf("n1 died in task %d, %d of its cells done", task, len(before))
	c.ended()

	log, err := os.ReadFile(shard(task) + ".log")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%d of 4 cells are done\n", len(before)); !strings.Contains(string(log), want) {
		t.Errorf("the task did not go on where it was: no %q in its log:\n%s", want, log)
	}
	unchanged(t, before)
	all, err := matrix.Read(filepath.Join(out, "merged"))
	if err != nil {
		t.Fatal(err)
	}
	if len(all.Plan) != 16 || len(all.Results) != 16 {
		t.Errorf("merged: %d results of %d cells, want 16", len(all.Results), len(all.Plan))
	}
	if page, err := os.ReadFile(filepath.Join(out, "merged", record.PageFile)); err != nil || !bytes.Contains(page, []byte("P11")) {
		t.Errorf("the page of the whole: %d bytes, %v", len(page), err)
	}
	for _, r := range all.Results {
		if r.Status.Failed() {
			t.Errorf("%s: %s: %s", r.Cell.ID(), r.Status, r.Reason)
		}
		if _, err := os.Stat(filepath.Join(out, "merged", r.Record, "run.json")); err != nil {
			t.Errorf("%s: its record: %v", r.Cell.ID(), err)
		}
	}
}
