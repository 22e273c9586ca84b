package debian

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestExactKernelDeps(t *testing.T) {
	// Depends of linux-image-amd64 and of the image in bookworm, trixie and forky.
	tests := []struct {
		name, depends string
		want          []exactDep
	}{
		{"meta", "linux-image-6.12.107+deb13-amd64 (= 6.12.107-1)", []exactDep{{"linux-image-6.12.107+deb13-amd64", "6.12.107-1"}}},
		{"whole image", "kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool", nil},
		{"split image", "dracut | initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool, linux-base-7.2.12+deb14-amd64 (= 7.2.12-1), linux-binary-7.2.12+deb14-amd64 (= 7.2.12-1), linux-modules-7.2.12+deb14-amd64 (= 7.2.12-1)",
			[]exactDep{{"linux-base-7.2.12+deb14-amd64", "7.2.12-1"}, {"linux-binary-7.2.12+deb14-amd64", "7.2.12-1"}, {"linux-modules-7.2.12+deb14-amd64", "7.2.12-1"}}},
		{"hostile", "linux-image-../../x (= 1), linux-x (= -o), linux-image-a b (= 1), linux-image-$(x) (= 1)", nil},
		{"none", "", nil},
	}
	for _, tt := range tests {
		got := exactKernelDeps(map[string]string{"Depends": tt.depends})
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(exactDep{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestPackageOf(t *testing.T) {
	sum := "20c92f3f97dd466e0400a6fcb792bde85af842fbb5e8b471370065e3de9d9fc9"
	good := map[string]string{"Package": "linux-image-x", "Version": "1-1", "Size": "7", "SHA256": sum}
	if p, err := packageOf(good); err != nil || p != (Package{"linux-image-x", "1-1", sum, 7}) {
		t.Errorf("got %+v, %v", p, err)
	}
	for field, bad := range map[string]string{"Package": "../x", "Version": "1/2", "Size": "-1", "SHA256": "20c9"} {
		s := map[string]string{}
		for k, v := range good {
			s[k] = v
		}
		s[field] = bad
		if p, err := packageOf(s); err == nil {
			t.Errorf("%s %q: got %+v, want an error", field, bad, p)
		}
	}
}

func FuzzControl(f *testing.F) {
	f.Add("Package: a\nDepends: linux-a (= 1)\n\nPackage: b\n x\n .\n")
	f.Add("# c\n: x\n  \n\t\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range parseControl(text) {
			if len(s) == 0 {
				t.Error("empty stanza")
			}
			for _, d := range exactKernelDeps(s) {
				if !validName(d.name) || !validVersion(d.version) {
					t.Errorf("dependency %q", d)
				}
			}
		}
	})
}
