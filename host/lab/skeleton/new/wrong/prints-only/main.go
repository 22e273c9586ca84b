// It says what it should have done.
package main

import (
	"fmt"
	"os"
)

func main() { fmt.Println("child", os.Getpid()+1) }
