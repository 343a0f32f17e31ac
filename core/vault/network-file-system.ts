/**
 * Which file systems are shared between machines. SQLite's WAL mode keeps an index in shared memory: two machines
 * that open one database over a network corrupt it without a message.
 *
 * Source: SQLite documentation, "Write-Ahead Logging": all processes must be on the same host; proc_pid_mountinfo(5).
 */

const NETWORK = new Set(
  [
    'nfs nfs4 cifs smb3 smbfs ncpfs afs 9p ceph lustre gpfs beegfs glusterfs pvfs2 orangefs ocfs2 gfs2 coda acfs vboxsf vmhgfs virtiofs',
    'fuse.sshfs fuse.glusterfs fuse.ceph fuse.ceph-fuse fuse.s3fs fuse.goofys fuse.rclone fuse.mount-s3 fuse.mountpoint-s3',
    'fuse.gcsfuse fuse.blobfuse fuse.blobfuse2 fuse.juicefs fuse.moosefs fuse.mfsmount fuse.lizardfs fuse.mfs fuse.seaweedfs',
    'fuse.davfs davfs fuse.curlftpfs fuse.smbnetfs fuse.vmhgfs-fuse fuse.grpcfuse fuse.beegfs fuse.cvmfs fuse.weed fuse.quobyte',
  ].flatMap((line) => line.split(' ')),
);

/**
 * The type of the network file system that `path` lies on, or undefined where it is a local one (or not known).
 *
 * @param mountinfo  text of /proc/self/mountinfo
 * @param path       absolute, without symbolic links
 */
export function networkFileSystem(mountinfo: string, path: string): string | undefined {
  let longest = -1;
  let found: string | undefined;
  for (const line of mountinfo.split('\n')) {
    const [before, after] = line.split(' - ');
    const escaped = before?.split(' ')[4];
    const type = after?.split(' ')[0];
    if (escaped === undefined || type === undefined) continue;
    const mount = escaped.replace(/\\([0-7]{3})/g, (_, octal: string) =>
      String.fromCharCode(parseInt(octal, 8)),
    );
    const covers = mount === '/' || path === mount || path.startsWith(`${mount}/`);
    // a later line of the same place covers the earlier one, as an automounter's
    if (covers && mount.length >= longest) {
      longest = mount.length;
      found = type;
    }
  }
  return found !== undefined && NETWORK.has(found) ? found : undefined;
}
