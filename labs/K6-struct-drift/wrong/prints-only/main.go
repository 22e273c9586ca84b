// Names itself as its child: the files are the same, but there is no child.
package main

import (
	"bufio"
	"fmt"
	"os"
)

func main() {
	fmt.Printf("@look shared self=%d child=%d\n", os.Getpid(), os.Getpid())
	bufio.NewReader(os.Stdin).ReadString('\n')
	fmt.Println("files are shared, mm is not")
}
