/* Holds a pod's namespaces open until it is told to end. As process 1 it is not ended by a signal that it
 * does not handle, and whoever the pod leaves behind is its child. */
#include <signal.h>
#include <unistd.h>

static void end(int signal) {
  (void)signal;
  _exit(0);
}

int main(void) {
  signal(SIGTERM, end);
  signal(SIGINT, end);
  signal(SIGCHLD, SIG_IGN);
  for (;;) pause();
}
